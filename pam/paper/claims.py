"""The paper's claims, tested with the values of a table."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pam.paper.spec import Claim, TableSpec
from pam.report.markdown import escape
from pam.score.compare import AGREEING_SEEDS, LEVEL, SEEDS, Cells, compare
from pam.score.significance import FEW, p_text

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be decided"
NO_DATA, NO_SET = "not measured", "no set at this scale"
FEW_CLUSTERS, ONE_SEED = "too few clusters", "one seed"
# How a line counts its comparisons.
COUNTS = {
    HOLDS: "hold",
    FAILS: "other way",
    OPEN: "within chance",
    FEW_CLUSTERS: "with too few clusters",
    ONE_SEED: "of one seed only",
    NO_DATA: "not measured (on the same utterances)",
    NO_SET: "without a set at this scale",
}
# The comparisons that a line names, and how it introduces them.
LISTED = {FAILS: "The other way", OPEN: "Within chance", ONE_SEED: "One seed only"}
RULES = (
    f"Each comparison is decided by the paired bootstrap over clusters at p < {LEVEL}, for WER by "
    "the matched-pairs test of clusters too. Utterances of one cluster (a speaker, an actor, a "
    f"meeting, a clip) are not independent; with fewer than {FEW} clusters, or one that is nearly "
    f"half of a set, nothing is decided. Seeds are a level of their own: {SEEDS} of each system or "
    f"more must have been trained, up to {AGREEING_SEEDS} must all point the same way, and what "
    "they differ by is part of the doubt. A comparison of one seed is of two trained models, not "
    "of systems, and decides no claim. A claim holds where all of its comparisons do. It does not "
    f"hold where one is the other way at p < {LEVEL} divided by the number of comparisons made "
    "(Bonferroni). Sets that the "
    "scale does not have are left out."
)


@dataclass(frozen=True)
class Pair:
    """One comparison of a claim: does row `better` beat row `than` in `column`?"""

    better: str
    than: str
    column: str
    verdict: str  # a key of COUNTS
    p: float = 1.0


def pairs(claim: Claim, spec: TableSpec, cells: Cells) -> list[Pair]:
    return [
        Pair(better, than, column, *_verdict(better, than, column, spec, cells))
        for better in claim.better
        for than in claim.than
        for column in claim.columns
    ]


def _verdict(
    better: str, than: str, column: str, spec: TableSpec, cells: Cells
) -> tuple[str, float]:
    if column in spec.columns and spec.columns[column].missing:
        return NO_SET, 1.0
    found = compare(cells[better][column], cells[than][column])
    if found is None:
        return NO_DATA, 1.0
    if found.undecided:
        return FEW_CLUSTERS, 1.0
    if found.p_of_all >= LEVEL:
        return OPEN, found.p_of_all
    if found.seeds < SEEDS:
        return ONE_SEED, 1.0
    holds = (found.value < 0) == spec.less_is_better(column)
    return HOLDS if holds else FAILS, found.p_of_all


def verdict(found: list[Pair]) -> str:
    """Verdict on a claim (see RULES). Only "one of many comparisons fails" needs a correction."""
    here = [pair for pair in found if pair.verdict != NO_SET]
    made = [pair for pair in here if pair.verdict != NO_DATA]
    if any(pair.verdict == FAILS and pair.p * len(made) < LEVEL for pair in made):
        return FAILS
    return HOLDS if {pair.verdict for pair in here} == {HOLDS} else OPEN


def claims_section(spec: TableSpec, cells: Cells, labels: Mapping[str, str]) -> list[str]:
    """The paragraphs of Markdown; empty if the paper has no claim about this table."""
    if not spec.claims:
        return []
    lines = [_line(claim, pairs(claim, spec, cells), labels) for claim in spec.claims]
    return ["## What the paper says of it", RULES, "\n".join(lines)]


def _line(claim: Claim, found: list[Pair], labels: Mapping[str, str]) -> str:
    counts = Counter(pair.verdict for pair in found)
    listed = ", ".join(f"{counts[kind]} {word}" for kind, word in COUNTS.items() if counts[kind])
    where = " (on the sets that this scale has)" if counts[NO_SET] else ""
    text = f"- **{verdict(found)}**{where}: {escape(claim.says)}. Comparisons: {listed}."
    for kind, words in LISTED.items():
        if named := [_named(pair, labels) for pair in found if pair.verdict == kind]:
            text += f" {words}: {'; '.join(named)}."
    return text


def _named(pair: Pair, labels: Mapping[str, str]) -> str:
    better, than, column = (
        labels.get(name, escape(name)) for name in (pair.better, pair.than, pair.column)
    )
    p = f" ({p_text(pair.p)})" if pair.verdict == FAILS else ""
    return f"{better} against {than}, {column}{p}"
