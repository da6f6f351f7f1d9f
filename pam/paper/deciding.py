"""What would decide the paper's claims: seeds and clusters by a power estimate, for planning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isinf

from pam.paper.claims import (
    DECIDED,
    FAILS,
    FAILS_HERE,
    HOLDS,
    HOLDS_HERE,
    NO_DATA,
    NO_SET,
    SEEDS_AGAINST,
    UNDECIDED,
    Pair,
    compared,
    pairs,
    verdict,
)
from pam.paper.spec import Claim, TableSpec
from pam.report.markdown import escape, table
from pam.report.units import metric_digits
from pam.score.compare import LEVEL, SEEDS, Cells
from pam.score.power import MOST, MOST_UTTERANCES, POWER, Components, components
from pam.score.significance import FEW

NONE = "no number"
NOTE = f"""\
What would decide: how many seeds (trainings of each system), or clusters of the present kind, would
show the observed difference with {100 * POWER:.0f} % power at p < {LEVEL}, if it were the true one.
These are figures for planning, with large uncertainty: the variances are estimates of few seeds and
clusters, and the observed difference is itself uncertain, a small one most of all.
`pam/score/power.py` has the method.

- σ is the standard deviation between the seeds of a system, pooled over the systems of the table as
  if all differed alike (df: its degrees of freedom), without what more clusters would remove. So
  few seeds cannot show that it is 0: figures with 0 are lower bounds.
- "2.67 → 27" seeds: today's number (of 2 and 4 seeds, their harmonic mean) and the number needed.
  "53 worth 15" clusters: 53 of unequal size tell as much as 15 equal ones.
- "{NONE}" of seeds: the present clusters or utterances alone leave too much doubt. "{NONE}" of
  clusters or utterances: the present seeds do. "Both" is for seeds and clusters that grow by the
  same factor.
- Of fewer than {FEW} clusters (or one that is nearly half of the set, or unknown ones) utterances
  are counted. So many decide for these clusters only. A statement about others needs {FEW} clusters
  or more; so do the claims that hold for these clusters only, which are not listed.
- A claim that would hold has the figures of its hardest comparison; that all of them hold at once
  is less probable. One that would not has those of the easiest comparison that points the other
  way, at p < {LEVEL} divided by the number of comparisons, of {SEEDS_AGAINST} seeds or more.
- Of two or three seeds the power is lower than it says: so few do not show how much seeds differ.
- Choose the number of seeds by this before you train them, and look once, when all are there."""
NUMBERS = [
    "difference",
    "σ of seeds (df)",
    "seeds, these clusters",
    "clusters, these seeds",
    "both",
]


@dataclass(frozen=True)
class Need:
    """A comparison of a claim, and its variances or why they are not estimated."""

    pair: Pair
    variances: Components | str
    level: float = LEVEL
    least: int = SEEDS  # seeds

    @property
    def growth(self) -> float:
        """The factor by which seeds and clusters must grow together."""
        return self.variances.both_needed(self.level, self.least)[0] / self.variances.seeds


def needs(claim: Claim, spec: TableSpec, cells: Cells) -> list[Need]:
    """The comparisons on sets that the scale has; those undecided with their variances."""
    found = [pair for pair in pairs(claim, spec, cells) if pair.verdict != NO_SET]
    return [Need(pair, _variances(pair, spec, cells)) for pair in found]


def _variances(pair: Pair, spec: TableSpec, cells: Cells) -> Components | str:
    if pair.verdict == NO_DATA:
        return NO_DATA
    how = spec.all_rows[pair.better].how
    alike = [cells[name][pair.column] for name, row in spec.all_rows.items() if row.how == how]
    return components(cells[pair.better][pair.column], cells[pair.than][pair.column], alike)


def deciding_section(spec: TableSpec, cells: Cells, labels: Mapping[str, str]) -> list[str]:
    """The paragraphs of Markdown; empty if all claims of the table are decided."""
    if not (claims := claims_part(spec, cells, labels)):
        return []
    rows = dict.fromkeys(
        (compared(need.pair, labels), *_numbers(need, cells))
        for claim in spec.claims
        for need in needs(claim, spec, cells)
        if isinstance(need.variances, Components) and need.pair.verdict not in DECIDED
    )
    comparisons = [table(["comparison", *NUMBERS], rows)] if rows else []
    return ["## What would decide", *([NOTE] if rows else []), *claims, *comparisons]


def claims_part(spec: TableSpec, cells: Cells, labels: Mapping[str, str]) -> list[str]:
    """The claims that are not decided: a table, and those without an estimate."""
    rows, without = [], []
    for claim in spec.claims:
        if verdict(pairs(claim, spec, cells), spec.seeds) not in UNDECIDED:
            continue
        outcome, need = outlook(needs(claim, spec, cells), spec)
        if need is None:
            without.append(f"- {outcome}: {escape(claim.says)}")
        else:
            what = [compared(need.pair, labels), *_numbers(need, cells)]
            rows.append([escape(claim.says), outcome, *what])
    header = ["claim", "if observed differences are true", "by the comparison", *NUMBERS]
    made = [table(header, rows)] if rows else []
    return [*made, "\n".join(without)] if without else made


def outlook(found: Sequence[Need], spec: TableSpec) -> tuple[str, Need | None]:
    """What becomes of an undecided claim if the observed differences are the true ones, and the
    comparison that says how much this takes."""
    made = [need for need in found if need.pair.verdict != NO_DATA]
    known = [need for need in made if isinstance(need.variances, Components)]
    against = [
        Need(need.pair, need.variances, LEVEL / len(made), SEEDS_AGAINST)
        for need in known
        if need.variances.difference and not _for_claim(need, spec)
    ]
    if against:
        easiest = min(against, key=lambda need: need.growth)
        return FAILS_HERE if easiest.variances.by_utterance else FAILS, easiest
    if not found:
        return f"Not estimated ({NO_SET})", None
    if len(known) < len(found):
        reasons = dict.fromkeys(n.variances for n in found if isinstance(n.variances, str))
        return f"Not estimated ({'; '.join(reasons)})", None
    here = any(need.variances.by_utterance for need in known)
    return HOLDS_HERE if here else HOLDS, max(known, key=lambda need: need.growth)


def _for_claim(need: Need, spec: TableSpec) -> bool:
    return (need.variances.difference < 0) == spec.less_is_better(need.pair.column)


def _numbers(need: Need, cells: Cells) -> list[str]:
    """The cells of NUMBERS."""
    its, level, least = need.variances, need.level, need.least
    digits = metric_digits(need.pair.column.rpartition("_")[2])
    seeds, clusters = its.seeds_needed(level, least), its.clusters_needed(level)
    now, unit, most = f"{its.clusters} worth {its.worth:.0f}", "clusters", MOST
    if its.by_utterance:
        of = cells[need.pair.better][need.pair.column].clusters
        now = f"{its.clusters} utterances of {of.count if of else 'unknown'} clusters"
        unit, most = "utterances", MOST_UTTERANCES
    both, together = its.both_needed(level, least)
    return [
        f"{its.difference:+.{digits}f}",
        f"{its.of_seeds**0.5:.{digits}f} ({its.df_of_seeds})",
        f"{its.seeds:.3g} → {_count(seeds, MOST)}",
        f"{now} → {_count(clusters, most, f' {unit}')}",
        _count(both, MOST, f" seeds, {together:,.0f} {unit}"),
    ]


def _count(number: float, most: int, after: str = "") -> str:
    """`after` follows a number that was found."""
    if isinf(number):
        return NONE
    return f"{number:,.0f}{after}" if number <= most else f"more than {most:,}"
