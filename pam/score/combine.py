"""Averages and ranks over sets, for each seed and for bootstrap samples."""

# K systems, C columns (one metric of one set), N bootstrap samples

import zlib
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from pam.score.compare import (
    Cell,
    Sums,
    fewest_clusters,
    from_samples,
    mean_sums,
    same_utterances,
    standard_deviation,
)
from pam.score.rank import average_rank
from pam.score.significance import (
    ClusterCount,
    bootstrap_ratios,
    cluster_sums,
    degrees_of_freedom,
)

Grid = Sequence[Sequence[Cell]]  # K rows of C cells


def averages(grid: Grid) -> list[Cell]:
    """The mean of every row over the columns. Every cell must have a value."""
    compared = _sampled(grid, _mean_of_columns)
    found = []
    for own, samples_N in zip(grid, compared, strict=True):
        by_seed = {seed: fmean(cell.by_seed[seed] for cell in own) for seed in _seeds(own)}
        (alone_N,) = _sampled([own], _mean_of_columns)
        value, doubt = fmean(cell.value for cell in own), _doubt([own])
        found.append(_combined(value, by_seed, alone_N, samples_N, doubt, (0, np.inf)))
    return found


def _mean_of_columns(values_CKN: np.ndarray) -> np.ndarray:
    return values_CKN.mean(0)


def ranks(grid: Grid, better: Sequence[str]) -> list[Cell]:
    """The mean rank of every row. `better` has "lower" or "higher" for each column.

    A row without a value in a column ranks worst in it and is not compared with other rows. Values
    and samples are of all seeds of each row. How much seeds differ is known from as many rankings
    as the row with the fewest seeds allows: of the first seeds of all rows, the second ones, …
    """
    sign_C11 = np.array([1.0 if way == "lower" else -1.0 for way in better])[:, None, None]

    def shared_ranks(values_CKN: np.ndarray) -> np.ndarray:
        # Equal rows share a rank, so that the order of the rows has no influence.
        return rankdata(np.nan_to_num(sign_C11 * values_CKN, nan=np.inf), axis=1).mean(0)

    seeds = [_seeds(own) for own in grid]
    rankings = [
        average_rank(
            [
                [cell.by_seed.get(seed) for cell in own]
                for own, seed in zip(grid, turn, strict=True)
            ],
            better,
        )
        for turn in zip(*seeds, strict=False)  # as many turns as the row with the fewest seeds has
    ]
    sampled, doubt = _sampled(grid, shared_ranks), _doubt(grid)
    found = []
    values = average_rank([[cell.value for cell in own] for own in grid], better)
    for place, (own, value) in enumerate(zip(grid, values, strict=True)):
        if any(cell.value is None for cell in own):
            found.append(Cell(value=value))
            continue
        by_seed = {turn: ranking[place] for turn, ranking in enumerate(rankings)}
        samples_N = sampled[place]
        found.append(_combined(value, by_seed, samples_N, samples_N, doubt, (1, len(grid))))
    return found


def _combined(
    value: float,
    by_seed: Mapping[int, float],
    alone_N: Float[np.ndarray, " N"] | None,
    samples_N: Float[np.ndarray, " N"] | None,
    doubt: tuple[float, ClusterCount | None],
    limits: tuple[float, float],
) -> Cell:
    """A cell whose interval comes from `alone_N` and the seeds, clipped to `limits`.

    Comparisons use `samples_N`. `doubt`: degrees of freedom, and clusters.
    """
    df, clusters = doubt
    interval = None
    if alone_N is not None:
        resampled = from_samples(alone_N, df).with_seeds(list(by_seed.values()))
        low, high = np.clip(resampled.ci95(), *limits).tolist()
        interval = (low, high)
    return Cell(
        value,
        sd=standard_deviation(by_seed),
        ci95=interval,
        by_seed=by_seed,
        samples_N=samples_N,
        df=df,
        clusters=clusters,
    )


def _doubt(grid: Grid) -> tuple[float, ClusterCount | None]:
    """The least degrees of freedom of the columns, and their fewest clusters."""
    known = [
        cell for column in zip(*grid, strict=True) for cell in column if cell.value is not None
    ]
    sums = [one for cell in known for one in cell.sums.values()]
    if not sums:
        return 1.0, None
    sizes = [
        cluster_sums(one.numerators_U[None], one.denominators_U, one.clusters)[1] for one in sums
    ]
    return min(map(degrees_of_freedom, sizes)), fewest_clusters([cell.clusters for cell in known])


def _seeds(own: Sequence[Cell]) -> list[int]:
    """The seeds that all known values of a row share."""
    seeds = [set(cell.by_seed) for cell in own if cell.value is not None]
    return sorted(set.intersection(*seeds)) if seeds else []


def _sampled(
    grid: Grid, together: Callable[[np.ndarray], np.ndarray]
) -> Sequence[Float[np.ndarray, " N"] | None]:
    """`together` of the bootstrap samples [C, K, N], for every row.

    All rows see the same resampled clusters of each set. None if their utterances differ.
    """
    resampled = [_resampled(column) for column in zip(*grid, strict=True)]
    if not resampled or any(values_KN is None for values_KN in resampled):
        return [None] * len(grid)
    return together(np.stack(resampled))


def _resampled(column: Sequence[Cell]) -> Float[np.ndarray, "K N"] | None:
    """A column's values for resampled clusters; NaN in rows without a value."""
    known = [place for place, cell in enumerate(column) if cell.value is not None]
    pooled = [mean_sums(list(column[place].sums.values())) for place in known]
    if not pooled or None in pooled or not same_utterances(pooled):
        return None
    numerators_KU = np.stack([sums.numerators_U for sums in pooled])
    clusters = next((sums.clusters for sums in pooled if sums.clusters), None)
    ratios_KN = bootstrap_ratios(
        numerators_KU, pooled[0].denominators_U, _seed(pooled[0], clusters), clusters
    )
    values_KN = np.full((len(column), ratios_KN.shape[1]), np.nan)
    values_KN[known] = pooled[0].scale * ratios_KN
    return values_KN


def _seed(sums: Sums, clusters: Sequence[str] | None) -> int:
    """The seed of a set's resampling.

    Sets with the same clusters (two tasks on the same clips) get the same seed, and so the same
    resampled clusters, since these are sorted by name. Other sets get different seeds. Where
    clusters are few, the same places of utterances are drawn: two versions of the same lines stay
    together if both sets have all of them in the same order, as those of the mini corpus do.
    """
    names = sorted(set(clusters)) if clusters else [sums.ids]
    return zlib.crc32("\n".join(names).encode())
