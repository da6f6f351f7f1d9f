"""Columns of a table that are made of others: averages and ranks, with seeds and samples."""

# K systems, C columns, N bootstrap samples

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from pam.paper.spec import Row, TableSpec
from pam.score.compare import (
    Cell,
    Cells,
    Sums,
    fewest_clusters,
    from_samples,
    mean_sums,
    same_utterances,
    spread,
)
from pam.score.rank import average_rank
from pam.score.significance import (
    ClusterCount,
    bootstrap_ratios,
    cluster_sums,
    degrees_of_freedom,
)


def add_averages(cells: Cells, spec: TableSpec, name: str, columns: Sequence[str]) -> None:
    """Over the columns that the scale has; of a best row over its members, as the paper does it."""
    there = [column for column in columns if not spec.columns[column].missing]
    for row in spec.all_rows.values():
        if row.how == "best":
            found = [cells[member][name].value for member in row.members]
            values = [value for value in found if value is not None]
        else:
            values = [cells[row.name][column].value for column in there]
        if not values or None in values:
            absent = [c for c in there if cells[row.name][c].value is None] or list(columns)
            cells[row.name][name] = Cell(gap=f"needs {', '.join(absent)}")
        else:
            cells[row.name][name] = Cell(value=fmean(values))
    rows = [
        row.name
        for row in spec.all_rows.values()
        if row.how != "best" and cells[row.name][name].value is not None
    ]
    compared = _sampled(cells, rows, there, _common_seeds(cells, rows, there), _mean_of_columns)
    for row, samples_N in zip(rows, compared, strict=True):
        seeds = _common_seeds(cells, [row], there)
        own = [cells[row][column].by_seed for column in there]
        by_seed = {seed: fmean(values[seed] for values in own) for seed in seeds}
        (alone_N,) = _sampled(cells, [row], there, seeds, _mean_of_columns)
        doubt = _doubt(cells, [row], there, seeds)
        _prove(cells[row], name, by_seed, alone_N, samples_N, doubt, (0, np.inf))


def _mean_of_columns(values_CKN: np.ndarray) -> np.ndarray:
    return values_CKN.mean(0)


def add_ranks(cells: Cells, spec: TableSpec, name: str, columns: Sequence[str]) -> None:
    """Among the shown rows that have a value, over the columns in which one of them has.

    A row that lacks one of these ranks worst in it, as in the paper's tables, and proves nothing.
    """
    there = ranked_columns(cells, spec, columns)
    ranked = [
        row.name
        for row in spec.rows.values()
        if row.how != "best" and any(cells[row.name][c].value is not None for c in there)
    ]
    for row in spec.rows:
        own = [cells[row][c] for c in columns if not spec.columns[c].missing]
        cells[row][name] = Cell(gap=_no_rank(own, spec.rows[row]))
    if len(ranked) < 2:
        return
    better = [spec.columns[column].better for column in there]
    values = [[cells[row][column].value for column in there] for row in ranked]
    for row, rank in zip(ranked, average_rank(values, better), strict=True):
        cells[row][name] = Cell(value=rank)
    sign_C11 = np.array([1.0 if way == "lower" else -1.0 for way in better])[:, None, None]

    def shared_ranks(values_CKN: np.ndarray) -> np.ndarray:
        # Equal rows share a rank here: the order of a table must not count as proof.
        return rankdata(np.nan_to_num(sign_C11 * values_CKN, nan=np.inf), axis=1).mean(0)

    seeds = _common_seeds(cells, ranked, there)
    by_seed = {seed: average_rank(_of_seed(cells, ranked, there, seed), better) for seed in seeds}
    sampled = _sampled(cells, ranked, there, seeds, shared_ranks)
    doubt = _doubt(cells, ranked, there, seeds)
    for place, (row, samples_N) in enumerate(zip(ranked, sampled, strict=True)):
        if all(cells[row][column].value is not None for column in there):
            own = {seed: ranks[place] for seed, ranks in by_seed.items()}
            _prove(cells[row], name, own, samples_N, samples_N, doubt, (1, len(ranked)))


def ranked_columns(cells: Cells, spec: TableSpec, columns: Sequence[str]) -> list[str]:
    """Those of a rank's columns in which a shown row has a value."""
    return [c for c in columns if any(cells[row][c].value is not None for row in spec.rows)]


def _of_seed(
    cells: Cells, rows: Sequence[str], columns: Sequence[str], seed: int
) -> list[list[float | None]]:
    return [[cells[row][column].by_seed.get(seed) for column in columns] for row in rows]


def _no_rank(own: Sequence[Cell], row: Row) -> str:
    if row.how == "best":
        return "not ranked: taken from other rows"
    gaps = dict.fromkeys(cell.gap for cell in own if cell.gap)
    return "; ".join(gaps) or "fewer than two rows to rank"


def _prove(
    own: dict[str, Cell],
    name: str,
    by_seed: Mapping[int, float],
    alone_N: Float[np.ndarray, " N"] | None,
    samples_N: Float[np.ndarray, " N"] | None,
    doubt: tuple[float, ClusterCount | None],
    limits: tuple[float, float],
) -> None:
    """Complete a cell that is made of others: its interval is that of `alone_N`, within `limits`,
    and `samples_N` is what it is compared by; `doubt`: degrees of freedom, and clusters."""
    df, clusters = doubt
    interval = None
    if alone_N is not None:
        low, high = np.clip(from_samples(alone_N, df).ci95(), *limits).tolist()
        interval = (low, high)
    own[name] = replace(
        own[name],
        sd=spread(by_seed),
        ci95=interval,
        by_seed=by_seed,
        samples_N=samples_N,
        df=df,
        clusters=clusters,
    )


def _doubt(
    cells: Cells, rows: Sequence[str], columns: Sequence[str], seeds: Sequence[int]
) -> tuple[float, ClusterCount | None]:
    """The least degrees of freedom of the columns, and their fewest clusters."""
    known = [cells[row][c] for c in columns for row in rows if cells[row][c].value is not None]
    sums = [cell.sums[seed] for cell in known for seed in seeds if seed in cell.sums]
    if not sums:
        return 1.0, None
    sizes = [
        cluster_sums(one.numerators_U[None], one.denominators_U, one.clusters)[1] for one in sums
    ]
    return min(map(degrees_of_freedom, sizes)), fewest_clusters([cell.clusters for cell in known])


def _common_seeds(cells: Cells, rows: Sequence[str], columns: Sequence[str]) -> list[int]:
    """The seeds of every value that there is."""
    own = [cells[row][column] for row in rows for column in columns]
    seeds = [set(cell.by_seed) for cell in own if cell.value is not None]
    return sorted(set.intersection(*seeds)) if seeds else []


def _sampled(
    cells: Cells,
    rows: Sequence[str],
    columns: Sequence[str],
    seeds: Sequence[int],
    together: Callable[[np.ndarray], np.ndarray],
) -> Sequence[Float[np.ndarray, " N"] | None]:
    """What `together` makes of samples [C, K, N] for every row, when the clusters of every set are
    resampled, the same ones for all rows; None where these or the seeds are not the same."""
    resampled = [_resampled(cells, rows, column, seeds) for column in columns]
    if not resampled or any(values_KN is None for values_KN in resampled):
        return [None] * len(rows)
    return together(np.stack(resampled))


def _resampled(
    cells: Cells, rows: Sequence[str], column: str, seeds: Sequence[int]
) -> Float[np.ndarray, "K N"] | None:
    """A column's values when its clusters are resampled; NaN in rows without one."""
    known = [place for place, row in enumerate(rows) if cells[row][column].value is not None]
    own = [[cells[rows[place]][column].sums.get(seed) for seed in seeds] for place in known]
    if any(None in sums for sums in own):
        return None
    pooled = [mean_sums(sums) for sums in own]
    if not pooled or None in pooled or not same_utterances(pooled):
        return None
    numerators_KU = np.stack([sums.numerators_U for sums in pooled])
    clusters = next((sums.clusters for sums in pooled if sums.clusters), None)
    ratios_KN = bootstrap_ratios(
        numerators_KU, pooled[0].denominators_U, _seed(pooled[0], clusters), clusters
    )
    values_KN = np.full((len(rows), ratios_KN.shape[1]), np.nan)
    values_KN[known] = pooled[0].scale * ratios_KN
    return values_KN


def _seed(sums: Sums, clusters: Sequence[str] | None) -> int:
    """Sets of the same clusters (the same clips, two tasks) draw the same ones; others their own.

    Their order is that of the names, so that the same places are the same clusters.
    """
    names = sorted(set(clusters)) if clusters else [sums.ids]
    return zlib.crc32("\n".join(names).encode())
