r"""Power of a comparison: how many seeds, or clusters, would decide it.

S trainings of each of two systems answer a set of C clusters. `compare` then finds the variance

.. math:: se^2(S, C) = \frac{1}{C} \left(σ_c^2 + \frac{2 σ_r^2}{S}\right)
    + \frac{2}{S} \left(σ_s^2 + \frac{σ_r^2}{C}\right)

σ_s² is the variance between the seeds of a system, σ_c² that of the systems' paired difference
between clusters, and the residual σ_r² is what one training gains or loses on single clusters. A
true difference d is found in 80 % of such experiments, at a two-sided level of 5 %, where

.. math:: |d| ≥ (t_{0.975} + t_{0.8}) \, se(S, C)

This is the rule (z_{0.975} + z_{0.8})² se² ≤ d² of planning (Cohen 1988; for language processing
Card et al. 2020, "With little power comes great responsibility", EMNLP) with the quantiles of
Student's t for the degrees of freedom that `compare` uses (Satterthwaite 1946).

Estimates come from the present results. Two seeds say hardly anything about σ_s, so σ_s² is pooled
over all systems with several seeds, as if the seeds of all systems differed alike. The first term
is that of the two systems today, the jackknife's variance over clusters. σ_r² is the part of it
that changes with the seeds, by the differences between seeds of a system, and at most all of it:
then σ_c² is 0, and nothing limits what more seeds can do, as far as the data show.

Simplifications: new clusters are like the present ones, equally unequal in size; the test is
Student's alone (`compare` also asks its resamples, and for WER the matched pairs); two systems of
S₁ and S₂ seeds count as two of S = 2 / (1 / S₁ + 1 / S₂); degrees of freedom are those of the true
variances, so that of two or three seeds, whose variances are poorly known, fewer than 80 % of
experiments find d; the residual is counted twice, as `compare` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import fmean, harmonic_mean, variance

import numpy as np
from scipy.stats import t

from pam.score.compare import LEVEL, SEEDS, Cell, mean_sums, same_utterances
from pam.score.significance import FEW, FEW_EFFECTIVE, count_clusters, resampled_ratio

POWER = 0.8
MOST = 1000  # seeds or clusters; more are not counted
MOST_UTTERANCES = 100_000
Numbers = np.ndarray | int | float
# Why nothing is estimated.
COMPOSITE = "a rank is composed of several sets and changes in steps"
NOT_PAIRED, NO_SEEDS = "not measured on the same utterances", "no system has two seeds"


@dataclass(frozen=True)
class Components:
    """Variances of the difference of two systems, in the squared unit of the metric.

    Attributes:
        difference: first − second.
        of_clusters, of_seeds, residual: σ_c², σ_s² and σ_r².
        clusters, seeds: their present numbers; of unequal numbers of seeds the harmonic mean.
        df_of_seeds: degrees of freedom of σ_s².
        share: clusters of equal size that one of the present clusters is worth, 1 or less.
        by_utterance: the set has too few clusters, or unknown ones, to estimate σ_c. Utterances
            were taken as clusters instead, and all figures are for its clusters only.
    """

    difference: float
    of_clusters: float
    of_seeds: float
    residual: float
    clusters: int
    seeds: float
    df_of_seeds: int = 0
    share: float = 1.0
    by_utterance: bool = False

    @property
    def worth(self) -> float:
        """Clusters of equal size that the present clusters are worth."""
        return self.share * self.clusters

    def decided(self, seeds: Numbers, clusters: Numbers, level: float = LEVEL) -> np.ndarray:
        """Whether so many seeds (2 or more) and clusters find the difference."""
        seeds, clusters = np.broadcast_arrays(np.asarray(seeds, float), np.asarray(clusters, float))
        set_ = (self.of_clusters + 2 * self.residual / seeds) / clusters
        system = (self.of_seeds + self.residual / clusters) / seeds
        total = set_ + 2 * system
        doubt = set_**2 / self._df(clusters) + 2 * system**2 / (seeds - 1)
        df = np.divide(total**2, doubt, out=np.ones_like(total), where=doubt > 0)
        found = self._exceeds(total, df, level)
        if self.by_utterance:
            return found
        return found & (clusters >= FEW) & (self.share * clusters >= FEW_EFFECTIVE)

    def seeds_needed(self, level: float = LEVEL, least: int = SEEDS) -> float:
        """Fewest seeds, `least` or more, with the present clusters; `MOST` + 1 for more; inf: no
        number decides."""
        seeds = np.arange(least, MOST + 1)
        limit = self.of_clusters / self.clusters
        possible = self._exceeds(limit, self._df(self.clusters), level)
        return _first(seeds, self.decided(seeds, self.clusters, level), bool(possible))

    def clusters_needed(self, level: float = LEVEL) -> float:
        """Fewest clusters (or utterances, see `by_utterance`) with the present seeds, as above."""
        if self.seeds < SEEDS:
            return inf
        most, step = (MOST_UTTERANCES, 10) if self.by_utterance else (MOST, 1)
        clusters = np.arange(FEW, most + 1, step)
        limit = 2 * self.of_seeds / self.seeds
        possible = self._exceeds(limit, 2 * (self.seeds - 1), level)
        return _first(clusters, self.decided(self.seeds, clusters, level), bool(possible))

    def both_needed(self, level: float = LEVEL, least: int = SEEDS) -> tuple[float, float]:
        """Fewest seeds and clusters if both numbers grow by the same factor."""
        seeds = np.arange(max(least, np.ceil(self.seeds)), MOST + 1)
        clusters = np.ceil(self.clusters * seeds / self.seeds)
        found = _first(seeds, self.decided(seeds, clusters, level), possible=True)
        return found, float(np.ceil(self.clusters * found / self.seeds))

    def _df(self, clusters: Numbers) -> np.ndarray:
        return np.maximum(1, self.share * clusters - 1)

    def _exceeds(self, square: Numbers, df: Numbers, level: float) -> np.ndarray:
        """Whether the difference is found if its standard error is the root of `square`."""
        factor = t.ppf(1 - level / 2, df) + t.ppf(POWER, df)
        return (self.difference != 0) & (self.difference**2 >= factor**2 * square)


def _first(numbers: np.ndarray, decided: np.ndarray, possible: bool) -> float:
    if decided.any():
        return float(numbers[decided.argmax()])
    return float(numbers[-1]) + 1 if possible else inf


def seed_variance(cell: Cell) -> tuple[float, float] | None:
    """The variance between the seeds of a system, and the part of it that is residual: σ_r² / C,
    by the jackknife of (seed − mean of the seeds). None without several seeds.
    """
    sums = list(cell.sums.values())
    mean = mean_sums(sums)
    if mean is None or len(sums) < SEEDS:
        return None
    apart = [
        resampled_ratio(one.numerators_U - mean.numerators_U, one.denominators_U, mean.clusters).se
        for one in sums
    ]
    residual = sum((mean.scale * se) ** 2 for se in apart) / (len(sums) - 1)
    return variance(cell.by_seed.values()), residual


def components(first: Cell, second: Cell, systems: Sequence[Cell]) -> Components | str:
    """The variances of first − second, or why they are not estimated.

    `systems` are the cells of all systems in this column; those of the same utterances are pooled.
    """
    if not (first.sums and second.sums):
        composite = first.samples_N is not None and second.samples_N is not None
        return COMPOSITE if composite else NOT_PAIRED
    one, two = (mean_sums(list(cell.sums.values())) for cell in (first, second))
    if one is None or two is None or not same_utterances([one, two]):
        return NOT_PAIRED
    clusters = one.clusters or two.clusters
    known = count_clusters(clusters)
    by_utterance = known is None or known.few
    alike = [cell for cell in systems if cell.sums and same_utterances([one, *cell.sums.values()])]
    pooled = [(cell, found) for cell in alike if (found := seed_variance(cell))]
    if not pooled or one.numerators_U.size < 2:
        return NO_SEEDS if not pooled else "one utterance"
    df = [len(cell.sums) - 1 for cell, _ in pooled]
    all_, rest = (float(np.average([f[part] for _, f in pooled], weights=df)) for part in (0, 1))
    own = [found[1] if (found := seed_variance(cell)) else rest for cell in (first, second)]
    delta_U = one.numerators_U - two.numerators_U
    found = resampled_ratio(delta_U, one.denominators_U, clusters)
    count = one.numerators_U.size if by_utterance else known.count
    square = (one.scale * found.se) ** 2
    seeds = harmonic_mean([len(first.sums), len(second.sums)])
    residual = min(fmean(own), square * seeds / 2)
    return Components(
        one.scale * found.value,
        of_clusters=count * (square - 2 * residual / seeds),
        of_seeds=max(0.0, all_ - rest),
        residual=count * residual,
        clusters=count,
        seeds=seeds,
        df_of_seeds=sum(df),
        share=min(1.0, (found.df + 1) / count),
        by_utterance=by_utterance,
    )
