"""Confidence intervals and paired tests that resample clusters, or utterances of few clusters.

Every metric here is a ratio of sums over utterances: errors / words for WER, points / 1 for a mean.
Utterances of one cluster (a speaker, an actor, a meeting, a clip) are not independent, so whole
clusters are drawn with replacement. The sums of clusters include the variance between clusters and
the variance between utterances of a cluster. Drawing utterances within the drawn clusters would
count the second variance twice.

Fewer than `FEW` clusters, or some of which one is nearly half of the set, cannot show how much
clusters differ. Then, and if clusters are unknown, utterances are drawn. Such an interval or test
takes the clusters as fixed: it holds for these speakers, actors, meetings or clips only (`scope`).
Utterances are drawn from all clusters together, so that it is a little too wide where these differ
much.

With few clusters, the estimate of the variance between clusters is poor. Three corrections keep the
coverage of 95 % intervals near 95 % from about ten clusters on (test_significance.py simulates it):

- G − 1 of G clusters are drawn (Rao and Wu 1988): the variance of the resamples has no bias;
- deviations are scaled to the standard error of the jackknife that leaves out one cluster, which
  is right for clusters of unequal sizes, and by Student's t over the normal quantile, with the
  degrees of freedom of the effective number of clusters, (Σ D)² / Σ D² for their denominators D;
- quantiles are those of BCa (Efron 1987), for skewed errors.
"""

# K systems, U utterances, G clusters, N bootstrap samples
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import variance
from typing import Any

import numpy as np
from scipy.stats import norm, t

SAMPLES = 2000
FEW = 10  # fewer clusters allow no conclusion about others
FEW_EFFECTIVE = 5  # nor do fewer effective clusters: one would be nearly half of the set
P_LEAST = 2 / (SAMPLES + 1)  # smallest p that the samples can show
_Z95 = 1.959964
_DRAWS_AT_ONCE = 4_000_000  # indices drawn at once, to limit the memory

Clusters = Sequence[Hashable] | None  # of each utterance; None: not known


@dataclass(frozen=True)
class ClusterCount:
    """The number of clusters, and the effective number: equally large clusters with the same
    information."""

    count: int
    effective: float

    @property
    def few(self) -> bool:
        """Whether there are too few clusters to be resampled."""
        return self.count < FEW or self.effective < FEW_EFFECTIVE


def count_clusters(clusters: Clusters) -> ClusterCount | None:
    """Count the clusters of the utterances; None if clusters are unknown."""
    if clusters is None:
        return None
    sizes_G = np.array(list(Counter(clusters).values()), dtype=np.float64)
    return ClusterCount(sizes_G.size, round(_effective(sizes_G), 1))


def scope(found: ClusterCount | None) -> str | None:
    """What an interval or a test is limited to; None if it holds for further clusters too."""
    if found is None:
        return "clusters not known"
    if not found.few:
        return None
    if found.count == 1:
        return "for this cluster only"
    worth = f", worth {found.effective:g} of equal size" if found.count >= FEW else ""
    return f"for these {found.count} clusters only{worth}"


@dataclass(frozen=True)
class Resampled:
    """A value with its bootstrap samples over clusters (see `cluster_sums`).

    `se` is the standard error, `df` its degrees of freedom, and `skew` the acceleration of BCa.
    """

    value: float
    samples_N: np.ndarray
    se: float
    df: float
    skew: float = 0.0
    symmetric: bool = False  # the interval, as Student's t

    def with_seeds(self, *systems: Sequence[float]) -> "Resampled":
        """Add the variance between training seeds to the mean of one system's, or to the
        difference of two systems' means.

        `systems` holds the values of each system's seeds. Degrees of freedom are by Satterthwaite
        (1946). A system with one seed adds no variance: the value then holds for the trained
        model only. With this variance, the interval is Student's: nothing shows that seeds are
        skewed.
        """
        parts = [(self.se**2, self.df)]
        parts += [(variance(own) / len(own), len(own) - 1) for own in systems if len(own) > 1]
        total = sum(part for part, _ in parts)
        if total == self.se**2:
            return self
        df = total**2 / sum(part**2 / df for part, df in parts)
        return replace(self, se=total**0.5, df=df, symmetric=True)

    def ci95(self) -> tuple[float, float]:
        samples_N = self.samples_N[~np.isnan(self.samples_N)]
        quantile = float(t.ppf(0.975, self.df))
        sd = float(samples_N.std())
        if sd == 0 or self.symmetric:
            return self.value - quantile * self.se, self.value + quantile * self.se
        below = (samples_N < self.value).mean() + (samples_N == self.value).mean() / 2
        bias = float(np.clip(norm.ppf(below), -1, 1))
        shifted = bias + np.array([-_Z95, _Z95])
        levels = norm.cdf(bias + shifted / (1 - self.skew * shifted))
        low, high = (np.quantile(samples_N, levels) - self.value) * quantile / _Z95
        return self.value + low * self.se / sd, self.value + high * self.se / sd

    def p(self) -> float:
        """Two-sided p of the hypothesis that the value is 0.

        It is the larger one of Student's p and of the share of samples beyond zero,
        (b + 1) / (N + 1).
        """
        samples_N = self.samples_N[~np.isnan(self.samples_N)]
        beyond = min((samples_N <= 0).sum(), (samples_N >= 0).sum())
        shown = 2 * (int(beyond) + 1) / (samples_N.size + 1)
        if self.se == 0:
            return min(1.0, shown)
        return min(1.0, max(shown, float(2 * t.sf(abs(self.value) / self.se, self.df))))


def p_text(p: float) -> str:
    """`p = 0.012`, or `p < 0.001` at the smallest p that the samples can show."""
    return f"p = {p:.3f}" if p > P_LEAST else "p < 0.001"


def bootstrap_ratios(
    numerators: np.ndarray, denominators: np.ndarray, seed: int, clusters: Clusters = None
) -> np.ndarray:
    """Ratios of sums of `numerators` [K, U] over `denominators` [U], clusters resampled: [K, N].

    All K rows use the same resampled clusters, so that comparisons are paired.
    """
    sums_KG, den_G = cluster_sums(numerators, denominators, clusters)
    count = den_G.shape[0]
    drawn = max(1, count - 1)
    rng = np.random.default_rng(seed)
    chunk = max(1, _DRAWS_AT_ONCE // count)
    ratios_KN = []
    for start in range(0, SAMPLES, chunk):
        index_NG = rng.integers(count, size=(min(chunk, SAMPLES - start), drawn))
        total_N = den_G[index_NG].sum(axis=1)
        sums_KN = np.stack([row[index_NG].sum(axis=1) for row in sums_KG])
        # A sample without any reference word has no ratio: nan, which the quantiles skip.
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios_KN.append(np.where(total_N > 0, sums_KN / total_N, np.nan))
    return np.concatenate(ratios_KN, axis=1)


def cluster_sums(
    numerators: np.ndarray, denominators: np.ndarray, clusters: Clusters
) -> tuple[np.ndarray, np.ndarray]:
    """Sum [K, U] and [U] over clusters: [K, G] and [G], in the order of the clusters' names.

    They are unchanged if clusters are unknown or too few. ValueError if `clusters` and the
    utterances differ in number.
    """
    if clusters is not None and len(clusters) != denominators.shape[0]:
        raise ValueError(f"{len(clusters)} clusters of {denominators.shape[0]} utterances")
    if clusters is None or count_clusters(clusters).few:
        return numerators, denominators
    places = {name: place for place, name in enumerate(sorted(set(clusters)))}
    place_U = np.array([places[name] for name in clusters])
    sums_KG = np.stack([np.bincount(place_U, weights=row) for row in numerators])
    return sums_KG, np.bincount(place_U, weights=denominators)


def resampled_ratio(
    numerators: np.ndarray, denominators: np.ndarray, clusters: Clusters = None, seed: int = 0
) -> Resampled:
    """Σ numerators / Σ denominators, both [U], with its bootstrap samples over clusters."""
    (num_G,), den_G = cluster_sums(numerators[None], denominators, clusters)
    value, count = float(num_G.sum() / den_G.sum()), den_G.size
    (samples_N,) = bootstrap_ratios(num_G[None], den_G, seed)
    rest_G = den_G.sum() - den_G
    # If only one cluster has words, the jackknife has no ratio without it.
    left_G = np.divide(num_G.sum() - num_G, rest_G, out=np.full(count, value), where=rest_G > 0)
    delta_G = value - left_G
    square = float((delta_G**2).sum())
    se = ((count - 1) / count * square) ** 0.5
    skew = float((delta_G**3).sum()) / (6 * square**1.5) if square else 0.0
    return Resampled(value, samples_N, se, degrees_of_freedom(den_G), skew)


def degrees_of_freedom(sizes_G: np.ndarray) -> float:
    """Degrees of freedom from the effective number of clusters, at least 1."""
    return max(1.0, _effective(sizes_G) - 1)


def _effective(sizes_G: np.ndarray) -> float:
    return float(sizes_G.sum() ** 2 / (sizes_G**2).sum())


def ci95(
    numerators: Sequence[float],
    denominators: Sequence[float] | None = None,
    *,
    clusters: Clusters = None,
    seed: int = 0,
    scale: float = 100.0,
    seeds: Sequence[float] = (),
) -> list[float]:
    """95 % interval of `scale` · Σ numerators / Σ denominators (without denominators: of the mean).

    If the numerators are means over several trainings, `seeds` holds the values of the trainings,
    in the unit of `scale`, and their variance is added (`Resampled.with_seeds`). The interval is
    clipped to the possible range: at 0 if no numerator is negative, at `scale` if no numerator is
    greater than its denominator.
    """
    num_U = np.asarray(numerators, dtype=np.float64)
    den_U = np.ones_like(num_U) if denominators is None else np.asarray(denominators, np.float64)
    found = resampled_ratio(num_U, den_U, clusters, seed)
    low, high = found.with_seeds([value / scale for value in seeds]).ci95()
    low = max(low, 0.0) if (num_U >= 0).all() else low
    high = min(high, 1.0) if (num_U <= den_U).all() else high
    return [round(scale * limit, 4) for limit in (low, high)]


def proportion_ci95(
    hits: Sequence[float], *, clusters: Clusters = None, seed: int = 0
) -> list[float]:
    """95 % interval, in percent, of the share of true values.

    If all values are equal, all bootstrap samples are equal too, and their interval would have no
    width. Then the result is Wilson's interval for the effective number of clusters, if these are
    resampled, else of utterances.
    """
    values_U = np.asarray(hits, dtype=np.float64)
    if 0 < values_U.sum() < values_U.size:
        return ci95(values_U, clusters=clusters, seed=seed)
    found = count_clusters(clusters)
    draws = found.effective if found and not found.few else values_U.size
    return wilson95(draws * bool(values_U[0]), draws)


def wilson95(correct: float, count: float) -> list[float]:
    """Wilson's 95 % score interval of `correct` out of `count`, in percent."""
    z2 = _Z95**2
    share = correct / count
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    sd = (z2 * (share * (1 - share) / count + z2 / (4 * count**2))) ** 0.5 / (1 + z2 / count)
    return [round(100 * max(0.0, centre - sd), 4), round(100 * min(1.0, centre + sd), 4)]


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    denominators: Sequence[float] | None = None,
    *,
    clusters: Clusters = None,
    seed: int = 0,
    scale: float = 100.0,
    seeds: tuple[Sequence[float], Sequence[float]] = ((), ()),
) -> dict[str, Any]:
    """Test the difference of two systems on the same utterances.

    `first` and `second` are numerators [U], as for `ci95`. If they are means over several
    trainings, `seeds` holds the values of the trainings, in the unit of `scale`, and their variance
    is added (`Resampled.with_seeds`). Returns `difference` (first − second, times `scale`), its
    `ci95`, and the two-sided `p` (`Resampled.p`).
    """
    first_U, second_U = _pair(first, second)
    den_U = np.ones_like(first_U) if denominators is None else np.asarray(denominators, float)
    values = [[value / scale for value in own] for own in seeds]
    found = resampled_ratio(first_U - second_U, den_U, clusters, seed).with_seeds(*values)
    low, high = found.ci95()
    return {"difference": scale * found.value, "ci95": [scale * low, scale * high], "p": found.p()}


def matched_pairs(
    first: Sequence[float], second: Sequence[float], clusters: Clusters = None
) -> dict[str, float]:
    """Matched pairs of segments: is the mean difference of their errors zero?

    The test of Gillick and Cox (ICASSP 1989) on counts of word errors [U]. It assumes independent
    segments. A segment is a cluster, with the sum of its errors, or an utterance if clusters are
    unknown or too few. Returns `mean` (errors per segment, first − second), `z`, and the two-sided
    `p` of Student's t distribution. `p` is at least 2 / 2^G, the share of sign patterns as extreme
    as G equal signs. `z` is infinite if all segments differ by the same count.
    """
    first_U, second_U = _pair(first, second)
    (delta_G,), _ = cluster_sums((first_U - second_U)[None], np.ones_like(first_U), clusters)
    mean, count = float(delta_G.mean()), delta_G.size
    if mean == 0 or count == 1:
        return {"mean": mean, "z": 0.0, "p": 1.0}
    with np.errstate(divide="ignore"):
        z = float(mean / (delta_G.std(ddof=1) / np.sqrt(count)))
    return {"mean": mean, "z": z, "p": max(float(2 * t.sf(abs(z), count - 1)), 2.0 ** (1 - count))}


def _pair(first: Sequence[float], second: Sequence[float]) -> np.ndarray:
    """[2, U]; ValueError if there are no utterances, or different numbers of them."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} utterances cannot be paired")
    if len(first) == 0:
        raise ValueError("no utterance to compare")
    return np.asarray([first, second], dtype=np.float64)
