"""The paper's claims, tested with the values of a table."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pam.paper.spec import Claim, TableSpec
from pam.report.markdown import escape
from pam.score.compare import AGREEING_SEEDS, LEVEL, SEEDS, Cells, compare
from pam.score.significance import FEW, p_text

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be decided"
HOLDS_HERE, FAILS_HERE = f"{HOLDS} for these clusters only", f"{FAILS} for these clusters"
AGAINST = {FAILS, FAILS_HERE}
DECIDED = {HOLDS, HOLDS_HERE} | AGAINST
NO_DATA, NO_SET, ONE_SEED = "not measured", "no set at this scale", "one seed"
# How a line counts its comparisons.
COUNTS = {
    HOLDS: "hold",
    HOLDS_HERE: "hold for these clusters only",
    FAILS: "other way",
    FAILS_HERE: "other way for these clusters only",
    OPEN: "within chance",
    ONE_SEED: "of one seed only",
    NO_DATA: "not measured (on the same utterances)",
    NO_SET: "without a set at this scale",
}
# The comparisons that a line names, and how it introduces them.
LISTED = {
    FAILS: "The other way",
    FAILS_HERE: "The other way for these clusters",
    OPEN: "Within chance",
    ONE_SEED: "One seed only",
}
RULES = (
    f"Each comparison is decided by the paired bootstrap at p < {LEVEL}, for WER by the "
    "matched-pairs test too. Both resample clusters, since utterances of one cluster (a speaker, "
    "an actor, a meeting, a clip) are not independent. Where a set has fewer than "
    f"{FEW} clusters, or one that is nearly half of it, or unknown ones, both use utterances "
    "instead. The result then holds for these clusters only; other speakers, actors, meetings or "
    f"clips may differ. Seeds are a level of their own: {SEEDS} of each system or more must have "
    f"been trained, up to {AGREEING_SEEDS} must all point the same way, and what they differ by is "
    "part of the doubt. A comparison of one seed is of two trained models, not of systems, and "
    "decides no claim. A claim holds where all of its comparisons hold; if some hold for their "
    "clusters only, so does the claim. It does not hold where one is the other way at "
    f"p < {LEVEL} divided by the number of comparisons made (Bonferroni); if all such are of few "
    "clusters, this too is said of these only. Sets that the scale does not have are left out."
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
    if found.p_of_all >= LEVEL:
        return OPEN, found.p_of_all
    if found.seeds < SEEDS:
        return ONE_SEED, 1.0
    holds = (found.value < 0) == spec.less_is_better(column)
    if found.only:
        return HOLDS_HERE if holds else FAILS_HERE, found.p_of_all
    return HOLDS if holds else FAILS, found.p_of_all


def verdict(found: list[Pair]) -> str:
    """Verdict on a claim (see RULES). Only "one of many comparisons fails" needs a correction."""
    here = [pair for pair in found if pair.verdict != NO_SET]
    made = [pair for pair in here if pair.verdict != NO_DATA]
    kinds = {pair.verdict for pair in here}
    against = {pair.verdict for pair in made if pair.p * len(made) < LEVEL} & AGAINST
    if against:
        return FAILS if FAILS in against else FAILS_HERE
    if kinds and kinds <= {HOLDS, HOLDS_HERE}:
        return HOLDS_HERE if HOLDS_HERE in kinds else HOLDS
    return OPEN


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
    p = f" ({p_text(pair.p)})" if pair.verdict in AGAINST else ""
    return f"{better} against {than}, {column}{p}"
