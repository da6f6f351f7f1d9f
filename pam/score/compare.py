"""A value of a paper table: its sums over utterances, and the comparison of two values."""

# U utterances, N bootstrap samples

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev

import numpy as np
from jaxtyping import Float

from pam.score.significance import (
    ClusterCount,
    Resampled,
    ci95,
    count_clusters,
    matched_pairs,
    paired_bootstrap,
    proportion_ci95,
    scope,
)

LEVEL = 0.05
SEEDS = 2  # a statement about systems, not single models, needs this many trainings of each


@dataclass(frozen=True)
class Sums:
    """The terms of a value for each utterance: scale · Σ numerators / Σ denominators."""

    ids: str  # digest of the utterance ids
    numerators_U: Float[np.ndarray, " U"]
    denominators_U: Float[np.ndarray, " U"]
    scale: float
    errors: bool = False  # the numerators count errors
    references: str | None = None  # digest of the references; None in older results
    model: str | None = None  # the model that the metric uses, if any
    clusters: tuple[str, ...] | None = None  # of the utterances; None in older results


def same_utterances(sums: Sequence[Sums]) -> bool:
    """Whether values are comparable: same utterances, references and model of the metric."""
    keys = ("references", "model", "clusters")
    known = [{getattr(one, key) for one in sums} - {None} for key in keys]
    return (
        len({one.ids for one in sums}) == 1
        and all(len(values) <= 1 for values in known)
        and all(np.array_equal(one.denominators_U, sums[0].denominators_U) for one in sums)
    )


@dataclass(frozen=True)
class Cell:
    """One value of a table, or the reason why it is missing (`gap`).

    `sums` and `by_seed` hold the sums and the value of each seed. `samples_N` holds the bootstrap
    samples of an average or a rank, with `df` degrees of freedom. `clusters` are those of the set,
    or the smallest count over several sets; None if one is unknown.
    """

    value: float | None = None
    gap: str | None = None
    sd: float | None = None
    ci95: tuple[float, float] | None = None
    sums: Mapping[int, Sums] = field(default_factory=dict)
    by_seed: Mapping[int, float] = field(default_factory=dict)
    samples_N: Float[np.ndarray, " N"] | None = None
    df: float = 1.0
    clusters: ClusterCount | None = None


@dataclass(frozen=True)
class Difference:
    """first − second in the unit of the metric, its 95 % interval, and p of the bootstrap.

    Attributes:
        p_matched: p of the matched-pairs test, if errors are counted.
        seeds: trainings of the first and of the second. With one of each, interval and p hold for
            these two models only.
        only: the clusters that all this is limited to; None if it holds for further ones too.
    """

    value: float
    low: float
    high: float
    p: float
    p_matched: float | None = None
    seeds: tuple[int, int] = (1, 1)
    only: str | None = None

    @property
    def p_of_all(self) -> float:
        """The largest p of all tests."""
        return max(self.p, self.p_matched or 0.0)

    @property
    def of_models(self) -> bool:
        """Whether it is of trained models alone, and says nothing of the systems."""
        return min(self.seeds) < SEEDS


Cells = dict[str, dict[str, Cell]]  # by row and column


def summary(sums: Mapping[int, Sums]) -> Cell:
    by_seed = {seed: ratio(one) for seed, one in sums.items()}
    together = mean_sums(list(sums.values()))
    interval = None if together is None else _interval(together, list(by_seed.values()))
    mean_ = fmean(by_seed.values())
    clusters = together and count_clusters(together.clusters)
    return Cell(
        mean_,
        sd=standard_deviation(by_seed),
        ci95=interval,
        sums=sums,
        by_seed=by_seed,
        clusters=clusters,
    )


def _interval(sums: Sums, seeds: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval, with the doubt about seeds. A share of 0 or 1 has Wilson's, since all its
    resamples are equal."""
    if _is_share(sums):  # all seeds are equal, too
        low, high = proportion_ci95(sums.numerators_U, clusters=sums.clusters)
    else:
        low, high = ci95(
            *(sums.numerators_U, sums.denominators_U),
            clusters=sums.clusters,
            scale=sums.scale,
            seeds=seeds,
        )
    return low, high


def _is_share(sums: Sums) -> bool:
    hits = np.isin(sums.numerators_U, (0, 1)).all() and (sums.denominators_U == 1).all()
    return bool(hits) and sums.scale == 100 and not sums.errors


def standard_deviation(by_seed: Mapping[int, float]) -> float | None:
    return stdev(by_seed.values()) if len(by_seed) > 1 else None


def ratio(sums: Sums) -> float:
    return float(sums.scale * sums.numerators_U.sum() / sums.denominators_U.sum())


def mean_sums(sums: Sequence[Sums]) -> Sums | None:
    """The mean of several systems or seeds on the same utterances; None if these differ."""
    if not sums or not same_utterances(sums):
        return None
    references, clusters = (
        next((getattr(one, key) for one in sums if getattr(one, key)), None)
        for key in ("references", "clusters")
    )
    numerators_U = np.mean([one.numerators_U for one in sums], axis=0)
    return replace(sums[0], numerators_U=numerators_U, references=references, clusters=clusters)


def compare(first: Cell, second: Cell) -> Difference | None:
    """The difference of the means over all seeds of each; None if the utterances are not the same.

    Utterances are paired. Seeds are not: seed 1 of one system has no more to do with seed 1 of the
    other than with seed 2. They are a separate source of variance: the variance between the seeds
    of each system is added to the variance of the difference of the means.
    """
    if first.samples_N is not None and second.samples_N is not None:
        return _compare_samples(first, second)
    one, two = (mean_sums(list(cell.sums.values())) for cell in (first, second))
    if one is None or two is None or not same_utterances([one, two]):
        return None
    first_U, second_U, clusters = one.numerators_U, two.numerators_U, one.clusters or two.clusters
    found = paired_bootstrap(
        *(first_U, second_U, one.denominators_U),
        clusters=clusters,
        scale=one.scale,
        seeds=_of_seeds(first, second),
    )
    return Difference(
        *(found["difference"], *found["ci95"], found["p"]),
        p_matched=matched_pairs(first_U, second_U, clusters)["p"] if one.errors else None,
        seeds=(len(first.by_seed), len(second.by_seed)),
        only=scope(count_clusters(clusters)),
    )


def _of_seeds(first: Cell, second: Cell) -> tuple[list[float], list[float]]:
    return list(first.by_seed.values()), list(second.by_seed.values())


def _compare_samples(first: Cell, second: Cell) -> Difference:
    deltas_N = first.samples_N - second.samples_N
    found = from_samples(deltas_N, min(first.df, second.df))
    found = found.with_seeds(*_of_seeds(first, second))
    value = first.value - second.value
    # The table's ranks are ordinal, but in samples equal rows share a rank. So the printed
    # difference and its samples can differ in sign, which shows nothing.
    shown = float(np.median(deltas_N)) * value > 0
    return Difference(
        *(value, *found.ci95(), found.p() if shown else 1.0),
        seeds=(len(first.by_seed), len(second.by_seed)),
        only=scope(fewest_clusters([first.clusters, second.clusters])),
    )


def from_samples(samples_N: Float[np.ndarray, " N"], df: float) -> Resampled:
    """Standard error and so on of a statistic, from its resamples alone."""
    return Resampled(float(np.nanmean(samples_N)), samples_N, float(np.nanstd(samples_N)), df)


def fewest_clusters(found: Sequence[ClusterCount | None]) -> ClusterCount | None:
    """The smallest count; None if one is unknown."""
    if not found or None in found:
        return None
    return min(found, key=lambda one: (not one.few, one.count))
