"""What the paper says, held against the intervals of a table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pam.report.markdown import escape
from pam.report.table_cells import Cells, compare
from pam.report.table_spec import Claim, TableSpec

LEVEL = 0.05
HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be decided"
NO_DATA = "not measured"


@dataclass(frozen=True)
class Pair:
    """One comparison of a claim: does row `better` beat row `than` in `column`?"""

    better: str
    than: str
    column: str
    verdict: str  # HOLDS, FAILS, OPEN or NO_DATA


def pairs(claim: Claim, spec: TableSpec, cells: Cells) -> list[Pair]:
    return [
        Pair(better, than, column, _verdict(better, than, column, spec, cells))
        for better in claim.better
        for than in claim.than
        for column in claim.columns
    ]


def _verdict(better: str, than: str, column: str, spec: TableSpec, cells: Cells) -> str:
    found = compare(cells[better][column], cells[than][column])
    if found is None:
        return NO_DATA
    if found.p >= LEVEL:
        return OPEN
    lower_is_better = column in spec.ranks or spec.columns[column].better == "lower"
    return HOLDS if (found.value < 0) == lower_is_better else FAILS


def verdict(found: list[Pair]) -> str:
    """Of a whole claim: one comparison that is significantly the other way refutes it."""
    verdicts = {pair.verdict for pair in found}
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts == {HOLDS} else OPEN


def claims_section(spec: TableSpec, cells: Cells, labels: Mapping[str, str]) -> list[str]:
    """The paragraphs of Markdown; none where the paper claims nothing of this table."""
    if not spec.claims:
        return []
    lines = [_line(claim, pairs(claim, spec, cells), labels) for claim in spec.claims]
    return [
        "## What the paper says of it",
        "Each comparison is decided by the paired bootstrap over utterances at 5 %, without a "
        "correction for their number. A claim holds where all of its comparisons do; it does not "
        "hold where one is significantly the other way. Seeds are not resampled: where there is "
        "one, nothing is said of other initialisations.",
        "\n".join(lines),
    ]


def _line(claim: Claim, found: list[Pair], labels: Mapping[str, str]) -> str:
    counts = {kind: sum(pair.verdict == kind for pair in found) for kind in (HOLDS, FAILS, OPEN)}
    absent = len(found) - sum(counts.values())
    text = (
        f"- **{verdict(found)}**: {escape(claim.says)}. Of {len(found)} comparisons "
        f"{counts[HOLDS]} hold, {counts[FAILS]} are the other way, {counts[OPEN]} are within "
        f"chance, {absent} are {NO_DATA}."
    )
    return text + "".join(_listed(found, kind, labels) for kind in (FAILS, OPEN))


def _listed(found: list[Pair], kind: str, labels: Mapping[str, str]) -> str:
    named = list(_names(found, kind, labels))
    words = {FAILS: "The other way", OPEN: "Within chance"}
    return f" {words[kind]}: {'; '.join(named)}." if named else ""


def _names(found: list[Pair], kind: str, labels: Mapping[str, str]) -> Iterator[str]:
    for pair in found:
        if pair.verdict == kind:
            better, than, column = (
                labels.get(name, escape(name)) for name in (pair.better, pair.than, pair.column)
            )
            yield f"{better} against {than}, {column}"
