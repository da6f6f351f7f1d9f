"""The paper's claims, tested with the values of a table."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from pam.paper.spec import Claim, TableSpec
from pam.report.markdown import escape, table
from pam.report.units import metric_digits
from pam.score.compare import LEVEL, SEEDS, Cells, Difference, compare
from pam.score.significance import FEW, p_text

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be decided"
NOT_YET = "not decided yet"  # fewer seeds than planned
HOLDS_HERE, FAILS_HERE = f"{HOLDS} for these clusters only", f"{FAILS} for these clusters"
AGAINST = {FAILS, FAILS_HERE}
DECIDED = {HOLDS, HOLDS_HERE} | AGAINST
NO_DATA, NO_SET, ONE_SEED = "not measured", "no set at this scale", "one seed"
UNDECIDED = {OPEN, NOT_YET, NO_DATA}
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
RESULTS = COUNTS | {HOLDS: HOLDS, HOLDS_HERE: HOLDS_HERE}  # of one comparison
SEEDS_AGAINST = 3  # of two seeds, a p far below LEVEL is too small
RULES = (
    f"Each comparison is decided by the paired bootstrap at p < {LEVEL}, for WER by the "
    "matched-pairs test too. Both resample clusters, since utterances of one cluster (a speaker, "
    f"an actor, a meeting, a clip) are not independent. Where a set has fewer than {FEW} "
    "clusters, or one that is nearly half of it, or unknown ones, both use utterances instead. "
    "The result then holds for these clusters only; other speakers, actors, meetings or clips "
    f"may differ. Seeds are a level of their own: {SEEDS} of each system or more must have been "
    "trained, and what they differ by is part of the doubt. All seeds of both systems count; "
    "they are not paired. A comparison of one seed is of two trained models, not of systems, and "
    "decides no claim. A claim holds where all of its comparisons hold; if some hold for their "
    f"clusters only, so does the claim. It does not hold where one, of {SEEDS_AGAINST} seeds of "
    f"each system or more, is the other way at p < {LEVEL} divided by the number of comparisons "
    "made (Bonferroni); if all such comparisons are on sets of few clusters, it does not hold "
    "for these clusters only. Sets that the scale does not have are left out. The claims are not "
    "corrected for their number. A level is for one look: whoever adds seeds because a claim is "
    f"open, and looks again, errs more often. So a claim is {NOT_YET} while one of its systems "
    "has fewer seeds than the table is planned with (`seeds` in conf/tables/scales.yaml), "
    "whatever its comparisons show."
)


@dataclass(frozen=True)
class Pair:
    """One comparison of a claim: does row `better` beat row `than` in `column`?"""

    better: str
    than: str
    column: str
    verdict: str  # a key of COUNTS
    found: Difference | None = None  # better − than

    def against(self, comparisons: int) -> bool:
        """Whether it alone refutes a claim of so many comparisons."""
        return (
            self.verdict in AGAINST
            and self.found.p_of_all * comparisons < LEVEL
            and min(self.found.seeds) >= SEEDS_AGAINST
        )


def pairs(claim: Claim, spec: TableSpec, cells: Cells) -> list[Pair]:
    return [
        Pair(better, than, column, *_verdict(better, than, column, spec, cells))
        for better in claim.better
        for than in claim.than
        for column in claim.columns
    ]


def _verdict(
    better: str, than: str, column: str, spec: TableSpec, cells: Cells
) -> tuple[str, Difference | None]:
    if column in spec.columns and spec.columns[column].missing:
        return NO_SET, None
    found = compare(cells[better][column], cells[than][column])
    if found is None:
        return NO_DATA, None
    if found.p_of_all >= LEVEL:
        return OPEN, found
    if found.of_models:
        return ONE_SEED, found
    holds = (found.value < 0) == spec.less_is_better(column)
    if found.only:
        return HOLDS_HERE if holds else FAILS_HERE, found
    return HOLDS if holds else FAILS, found


def verdict(found: Sequence[Pair], planned: int = 1) -> str:
    """Verdict on a claim (see RULES). Only "one of many comparisons fails" needs a correction.

    Args:
        planned: seeds of each system.
    """
    here = [pair for pair in found if pair.verdict != NO_SET]
    made = [pair for pair in here if pair.verdict != NO_DATA]
    if here and not made:
        return NO_DATA
    if made and least_seeds(made) < planned:
        return NOT_YET
    kinds = {pair.verdict for pair in here}
    against = {pair.verdict for pair in made if pair.against(len(made))}
    if against:
        return FAILS if FAILS in against else FAILS_HERE
    if kinds and kinds <= {HOLDS, HOLDS_HERE}:
        return HOLDS_HERE if HOLDS_HERE in kinds else HOLDS
    return OPEN


def least_seeds(found: Iterable[Pair]) -> int:
    """Of the systems of all comparisons that were made; 0 for none."""
    return min((min(pair.found.seeds) for pair in found if pair.found), default=0)


def claims_section(spec: TableSpec, cells: Cells, labels: Mapping[str, str]) -> list[str]:
    """The paragraphs of Markdown; empty if the paper has no claim about this table."""
    if not spec.claims:
        return []
    found = [pairs(claim, spec, cells) for claim in spec.claims]
    parts = [*_preliminary(spec, found), claims_list(spec, found)]
    rows = [_compared(pair, labels) for pair in chain(*found) if pair.found]
    if rows:
        header = ["first against second", "difference [95 %]", "p", "seeds", "result"]
        parts += ["All comparisons (first minus second):", table(header, dict.fromkeys(rows))]
    return ["## What the paper says of it", RULES, *parts]


def claims_list(spec: TableSpec, found: Sequence[Sequence[Pair]]) -> str:
    """A line for each claim, of the `pairs` of each."""
    own = zip(spec.claims, found, strict=True)
    return "\n".join(_line(spec, claim, its) for claim, its in own)


def _preliminary(spec: TableSpec, found: Sequence[Sequence[Pair]]) -> list[str]:
    seeds = least_seeds(chain(*found))
    if not 0 < seeds < spec.seeds:
        return []
    return [
        f"**Preliminary**: {spec.seeds} seeds of each system are planned (`seeds` in "
        f"conf/tables/scales.yaml); some have {seeds}. A claim is decided once, when all of its "
        "systems have theirs."
    ]


def _line(spec: TableSpec, claim: Claim, found: Sequence[Pair]) -> str:
    outcome = verdict(found, spec.seeds)
    counts = Counter(pair.verdict for pair in found)
    listed = ", ".join(f"{counts[kind]} {word}" for kind, word in COUNTS.items() if counts[kind])
    where = " (on the sets that this scale has)" if counts[NO_SET] else ""
    if outcome == NOT_YET:
        where = f" (seeds: {least_seeds(found)} of {spec.seeds}){where}"
    return f"- **{outcome}**{where}: {escape(claim.says)}. Comparisons: {listed}."


def _compared(pair: Pair, labels: Mapping[str, str]) -> tuple[str, ...]:
    its, digits = pair.found, metric_digits(pair.column.rpartition("_")[2])
    value, low, high = (f"{number:+.{digits}f}" for number in (its.value, its.low, its.high))
    return (
        compared(pair, labels),
        f"{value} [{low}, {high}]",
        p_text(its.p_of_all).removeprefix("p ").removeprefix("= "),
        " and ".join(map(str, dict.fromkeys(its.seeds))),
        RESULTS[pair.verdict],
    )


def compared(pair: Pair, labels: Mapping[str, str]) -> str:
    """`PaM against Average, AMI WER`, as Markdown."""
    better, than, column = (
        labels.get(name, escape(name)) for name in (pair.better, pair.than, pair.column)
    )
    return f"{better} against {than}, {column}"
