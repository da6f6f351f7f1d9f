"""The cells of a table, from stored results: means over seeds, averages, ranks, and their proof."""

# K systems, C columns, U utterances, N bootstrap samples

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from pam.report.table_spec import Column, Row, TableSpec
from pam.score.rank import average_rank
from pam.score.significance import (
    bootstrap_ratios,
    ci95,
    matched_pairs,
    paired_bootstrap,
    proportion_ci95,
)

Store = Mapping[str, Mapping[str, Any]]  # stored results by the name of their experiment
NOT_YET = "not trained and scored yet"
ALWAYS = ("wer", "accuracy", "meteor")  # other metrics are scored where they are asked for
LEVEL = 0.05


@dataclass(frozen=True)
class Sums:
    """What a value is made of, by utterance: scale · Σ numerators / Σ denominators."""

    ids: str  # a digest of the utterances
    numerators_U: Float[np.ndarray, " U"]
    denominators_U: Float[np.ndarray, " U"]
    scale: float
    errors: bool = False  # the numerators count errors
    references: str | None = None  # a digest of what was right; None in results of before it
    model: str | None = None  # that measured it, where the metric has one


def same_utterances(sums: Sequence[Sums]) -> bool:
    """Only what was scored on the same utterances, references and by one model is comparable."""
    known = [{getattr(one, key) for one in sums} - {None} for key in ("references", "model")]
    return (
        len({one.ids for one in sums}) == 1
        and all(len(values) <= 1 for values in known)
        and all(np.array_equal(one.denominators_U, sums[0].denominators_U) for one in sums)
    )


@dataclass(frozen=True)
class Cell:
    """One value, or why there is none (`gap`). `sums` and the values `by_seed` are by seed."""

    value: float | None = None
    gap: str | None = None
    sd: float | None = None
    ci95: tuple[float, float] | None = None
    sums: Mapping[int, Sums] = field(default_factory=dict)
    by_seed: Mapping[int, float] = field(default_factory=dict)
    samples_N: Float[np.ndarray, " N"] | None = None  # of an average or a rank, resampled


@dataclass(frozen=True)
class Difference:
    """first − second in the unit of the metric, its 95 % interval, and p of the bootstrap.

    `p_matched` is that of the matched-pairs test, where errors are counted; `agree`: every seed
    that both have differs in this direction.
    """

    value: float
    low: float
    high: float
    p: float
    p_matched: float | None = None
    agree: bool = True

    @property
    def p_of_all(self) -> float:
        """The p of every test that there is: the greatest; 1 where seeds contradict each other."""
        return max(self.p, self.p_matched or 0.0) if self.agree else 1.0


Cells = dict[str, dict[str, Cell]]


def table_cells(spec: TableSpec, store: Store, budget: str) -> Cells:
    """{row: {column: cell}} of all rows and columns, hidden ones too."""
    rows = spec.all_rows
    cells: Cells = {name: {} for name in rows}
    for name, row in rows.items():
        if row.how == "system":
            found, gap = stored_runs(row, store, spec.scale, budget)
            for key, column in spec.columns.items():
                cells[name][key] = measured(column, found, gap)
    for name, row in rows.items():
        for key, column in spec.columns.items():
            if row.how != "system":
                members = {member: cells[member][key] for member in row.members}
                cells[name][key] = mean(members) if row.how == "mean" else best(members, column)
    for name, columns in spec.averages.items():
        _add_averages(cells, spec, name, columns)
    for name, columns in spec.ranks.items():
        _add_ranks(cells, spec, name, columns)
    return cells


def stored_runs(
    row: Row, store: Store, scale: str, budget: str
) -> tuple[dict[int, Mapping[str, Any]], str | None]:
    """The row's results by seed, and why there is none."""
    if row.missing:
        return {}, row.missing
    found, gap = {}, NOT_YET
    for name, result in store.items():
        seed = result.get("seed")
        if seed is None or name != row.experiment(scale, budget, seed):
            continue
        if result["system"] == row.system and set(row.options) <= set(result["options"]):
            found[seed] = result
        else:
            gap = f"{name} was made with other options"
    return dict(sorted(found.items())), None if found else gap


def measured(column: Column, runs: Mapping[int, Mapping[str, Any]], gap: str | None) -> Cell:
    """The mean over the seeds that have the column."""
    if column.missing:
        return Cell(gap=column.missing)
    if not runs:
        return Cell(gap=gap)
    found = {seed: run["sets"].get(column.set, {}) for seed, run in runs.items()}
    scored = {
        seed: entry for seed, entry in found.items() if column.metric in entry.get("metrics", {})
    }
    if not scored:
        reasons = [entry.get("missing", {}).get(column.metric) for entry in found.values()]
        known = next(filter(None, reasons), None)
        return Cell(gap=known or f"{column.metric} of {column.set} was not scored{_remedy(column)}")
    return _summary({seed: sums_of(entry, column.metric) for seed, entry in scored.items()})


def _remedy(column: Column) -> str:
    return "" if column.metric in ALWAYS else f" (--metrics {column.metric} of the recipe)"


def sums_of(entry: Mapping[str, Any], metric: str) -> Sums:
    """From a set of a stored result."""
    stored = entry["metrics"][metric]
    numerators = np.asarray(stored["numerators"], dtype=np.float64)
    denominators = stored.get("denominators")
    ones = np.ones_like(numerators)
    return Sums(
        entry["ids"],
        numerators,
        ones if denominators is None else np.asarray(denominators, dtype=np.float64),
        float(stored["scale"]),
        bool(stored.get("errors")),
        entry.get("references"),
        stored.get("model"),
    )


def mean(members: Mapping[str, Cell]) -> Cell:
    """The mean over other rows of one column; it needs all of them."""
    if absent := [name for name, cell in members.items() if cell.value is None]:
        reasons = {members[name].gap for name in absent}
        return Cell(gap=f"needs {', '.join(absent)}: {'; '.join(sorted(map(str, reasons)))}")
    cells = list(members.values())
    seeds = set.intersection(*(set(cell.sums) for cell in cells))
    sums = {seed: _mean_sums([cell.sums[seed] for cell in cells]) for seed in sorted(seeds)}
    if not seeds or None in sums.values():
        return Cell(value=fmean(cell.value for cell in cells))
    return _summary(sums)


def best(members: Mapping[str, Cell], column: Column) -> Cell:
    """The best of other rows in one column, without an interval: it was chosen by its value."""
    cells = [cell for cell in members.values() if cell.value is not None]
    if not cells:
        return Cell(gap=f"needs one of {', '.join(members)}")
    choose = min if column.better == "lower" else max
    chosen = choose(cells, key=lambda cell: cell.value)
    return replace(chosen, ci95=None, sd=None, sums={}, by_seed={})


def compare(first: Cell, second: Cell) -> Difference | None:
    """Paired over utterances, and over the seeds that both have; None where that is impossible."""
    if first.samples_N is not None and second.samples_N is not None:
        return _compare_samples(first, second)
    seeds = sorted(first.sums.keys() & second.sums.keys())
    if not seeds:
        return None
    one, two = (_mean_sums([cell.sums[seed] for seed in seeds]) for cell in (first, second))
    if one is None or two is None or not same_utterances([one, two]):
        return None
    first_U, second_U = one.numerators_U, two.numerators_U
    found = paired_bootstrap(first_U, second_U, one.denominators_U, scale=one.scale)
    matched = matched_pairs(first_U, second_U)["p"] if one.errors else None
    value = found["difference"]
    return Difference(value, *found["ci95"], found["p"], matched, _agree(first, second, value))


def _agree(first: Cell, second: Cell, value: float) -> bool:
    """Does every seed that both have differ in the direction of `value`?"""
    seeds = first.by_seed.keys() & second.by_seed.keys()
    return all((first.by_seed[seed] - second.by_seed[seed]) * value > 0 for seed in seeds)


def _summary(sums: Mapping[int, Sums]) -> Cell:
    by_seed = {seed: ratio(one) for seed, one in sums.items()}
    together = _mean_sums(list(sums.values()))
    interval = None if together is None else _interval(together)
    mean_ = fmean(by_seed.values())
    return Cell(mean_, sd=_spread(by_seed), ci95=interval, sums=sums, by_seed=by_seed)


def _interval(sums: Sums) -> tuple[float, float]:
    """Of a share that is 0 or 1 Wilson's: each of its resamples would be the same."""
    low, high = (
        proportion_ci95(sums.numerators_U)
        if _is_share(sums)
        else ci95(sums.numerators_U, sums.denominators_U, seed=0, scale=sums.scale)
    )
    return low, high


def _is_share(sums: Sums) -> bool:
    hits = np.isin(sums.numerators_U, (0, 1)).all() and (sums.denominators_U == 1).all()
    return bool(hits) and sums.scale == 100 and not sums.errors


def _spread(by_seed: Mapping[int, float]) -> float | None:
    return stdev(by_seed.values()) if len(by_seed) > 1 else None


def ratio(sums: Sums) -> float:
    return float(sums.scale * sums.numerators_U.sum() / sums.denominators_U.sum())


def _mean_sums(sums: Sequence[Sums]) -> Sums | None:
    """Of several systems or seeds on the same utterances; None where these differ."""
    if not sums or not same_utterances(sums):
        return None
    references = next((one.references for one in sums if one.references), None)
    numerators_U = np.mean([one.numerators_U for one in sums], axis=0)
    return replace(sums[0], numerators_U=numerators_U, references=references)


def _compare_samples(first: Cell, second: Cell) -> Difference:
    deltas_N = first.samples_N - second.samples_N
    low, high = np.quantile(deltas_N, [0.025, 0.975])
    tail = min((deltas_N <= 0).mean(), (deltas_N >= 0).mean())
    p = min(1.0, max(2 * float(tail), 1 / len(deltas_N)))
    value = first.value - second.value
    # Ranks of the table are ordinal, those of the samples are shared by equal rows, and a row may
    # have seeds that not all have: what is printed and what proves it can point apart.
    agree = _agree(first, second, value) and float(np.median(deltas_N)) * value > 0
    return Difference(value, float(low), float(high), p, agree=agree)


def _add_averages(cells: Cells, spec: TableSpec, name: str, columns: Sequence[str]) -> None:
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
        _prove(cells[row], name, by_seed, alone_N, samples_N)


def _mean_of_columns(values_CKN: np.ndarray) -> np.ndarray:
    return values_CKN.mean(0)


def _add_ranks(cells: Cells, spec: TableSpec, name: str, columns: Sequence[str]) -> None:
    """Among the shown rows that have a value, over the columns in which one of them has.

    A row that lacks one of these ranks worst in it, as in the paper's tables, and proves nothing.
    """
    there = [c for c in columns if any(cells[row][c].value is not None for row in spec.rows)]
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
    for place, (row, samples_N) in enumerate(zip(ranked, sampled, strict=True)):
        if all(cells[row][column].value is not None for column in there):
            own = {seed: ranks[place] for seed, ranks in by_seed.items()}
            _prove(cells[row], name, own, samples_N, samples_N)


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
) -> None:
    """Complete a cell that is made of others: its interval is that of `alone_N`, and `samples_N` is
    what it is compared by."""
    interval = None
    if alone_N is not None:
        interval = tuple(np.nanquantile(alone_N, [0.025, 0.975]).tolist())
    own[name] = replace(
        own[name], sd=_spread(by_seed), ci95=interval, by_seed=by_seed, samples_N=samples_N
    )


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
    """What `together` makes of samples [C, K, N] for every row, when the utterances of every set
    are resampled, the same ones for all rows; None where these or the seeds are not the same."""
    resampled = [_resampled(cells, rows, c, seeds, number) for number, c in enumerate(columns)]
    if not resampled or any(values_KN is None for values_KN in resampled):
        return [None] * len(rows)
    return together(np.stack(resampled))


def _resampled(
    cells: Cells, rows: Sequence[str], column: str, seeds: Sequence[int], number: int
) -> Float[np.ndarray, "K N"] | None:
    """A column's values when its utterances are resampled; NaN in rows without one."""
    known = [place for place, row in enumerate(rows) if cells[row][column].value is not None]
    own = [[cells[rows[place]][column].sums.get(seed) for seed in seeds] for place in known]
    if any(None in sums for sums in own):
        return None
    pooled = [_mean_sums(sums) for sums in own]
    if not pooled or None in pooled or not same_utterances(pooled):
        return None
    numerators_KU = np.stack([sums.numerators_U for sums in pooled])
    ratios_KN = bootstrap_ratios(numerators_KU, pooled[0].denominators_U, seed=number)
    values_KN = np.full((len(rows), ratios_KN.shape[1]), np.nan)
    values_KN[known] = pooled[0].scale * ratios_KN
    return values_KN
