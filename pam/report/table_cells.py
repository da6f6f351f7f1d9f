"""The cells of a table, from stored results: means over seeds, averages, ranks, and their proof."""

# K systems, U utterances, N bootstrap samples

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from pam.report.table_spec import Column, Row, TableSpec
from pam.score.rank import average_rank
from pam.score.significance import bootstrap_ratios, ci95, matched_pairs, paired_bootstrap

Store = Mapping[str, Mapping[str, Any]]  # stored results by the name of their experiment
NOT_YET = "not trained and scored yet"


@dataclass(frozen=True)
class Sums:
    """What a value is made of, by utterance: scale · Σ numerators / Σ denominators."""

    ids: str  # a digest of the utterances; only equal ones can be compared in pairs
    numerators_U: Float[np.ndarray, " U"]
    denominators_U: Float[np.ndarray, " U"]
    scale: float
    errors: bool = False  # the numerators count errors


@dataclass(frozen=True)
class Cell:
    """One value, or why there is none (`gap`). `sums` are by seed."""

    value: float | None = None
    gap: str | None = None
    sd: float | None = None
    ci95: tuple[float, float] | None = None
    sums: Mapping[int, Sums] = field(default_factory=dict)
    samples_N: Float[np.ndarray, " N"] | None = None  # of a rank, resampled


@dataclass(frozen=True)
class Difference:
    """first − second in the unit of the metric, its 95 % interval, and p of the bootstrap.

    `p_matched` is that of the matched-pairs test, where errors are counted.
    """

    value: float
    low: float
    high: float
    p: float
    p_matched: float | None = None


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
        return Cell(gap=known or f"{column.metric} of {column.set} was not scored")
    return _summary({seed: sums_of(entry, column.metric) for seed, entry in scored.items()})


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
    return replace(choose(cells, key=lambda cell: cell.value), ci95=None, sd=None, sums={})


def compare(first: Cell, second: Cell) -> Difference | None:
    """Paired over utterances, and over the seeds that both have; None where that is impossible."""
    if first.samples_N is not None and second.samples_N is not None:
        return _compare_samples(first, second)
    seeds = sorted(first.sums.keys() & second.sums.keys())
    if not seeds:
        return None
    one, two = (_mean_sums([cell.sums[seed] for seed in seeds]) for cell in (first, second))
    if one is None or two is None or one.ids != two.ids:
        return None
    first_U, second_U = one.numerators_U, two.numerators_U
    found = paired_bootstrap(first_U, second_U, one.denominators_U, scale=one.scale)
    matched = matched_pairs(first_U, second_U)["p"] if one.errors else None
    return Difference(found["difference"], *found["ci95"], found["p"], matched)


def _summary(sums: Mapping[int, Sums]) -> Cell:
    values = [ratio(one) for one in sums.values()]
    together = _mean_sums(list(sums.values()))
    interval = None
    if together is not None:
        low, high = ci95(
            together.numerators_U, together.denominators_U, seed=0, scale=together.scale
        )
        interval = (low, high)
    sd = stdev(values) if len(values) > 1 else None
    return Cell(fmean(values), sd=sd, ci95=interval, sums=sums)


def ratio(sums: Sums) -> float:
    return float(sums.scale * sums.numerators_U.sum() / sums.denominators_U.sum())


def _mean_sums(sums: Sequence[Sums]) -> Sums | None:
    """Of several systems or seeds on the same utterances; None where these differ."""
    if len({one.ids for one in sums}) != 1:
        return None
    return replace(sums[0], numerators_U=np.mean([one.numerators_U for one in sums], axis=0))


def _compare_samples(first: Cell, second: Cell) -> Difference:
    deltas_N = first.samples_N - second.samples_N
    low, high = np.quantile(deltas_N, [0.025, 0.975])
    tail = min((deltas_N <= 0).mean(), (deltas_N >= 0).mean())
    p = min(1.0, max(2 * float(tail), 1 / len(deltas_N)))
    return Difference(first.value - second.value, float(low), float(high), p)


def _add_averages(cells: Cells, spec: TableSpec, name: str, columns: Sequence[str]) -> None:
    """Over the columns that the scale has; of a best row over its members, as the paper does it."""
    there = [column for column in columns if not spec.columns[column].missing]
    for row in spec.all_rows.values():
        values = [cells[row.name][column].value for column in there]
        if row.how == "best":
            values = [cells[member][name].value for member in row.members]
            values = [value for value in values if value is not None]
        if not values or None in values:
            absent = [c for c in there if cells[row.name][c].value is None] or list(columns)
            cells[row.name][name] = Cell(gap=f"needs {', '.join(absent)}")
        else:
            cells[row.name][name] = Cell(value=fmean(values))


def _add_ranks(cells: Cells, spec: TableSpec, name: str, columns: Sequence[str]) -> None:
    """Among the shown rows that have a value, over the columns in which one of them has."""
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
    ranks = average_rank([[cells[r][c].value for c in there] for r in ranked], better)
    samples = _rank_samples(cells, ranked, there, better)
    for number, row in enumerate(ranked):
        own_N = None if samples is None else samples[:, number]
        interval = None if own_N is None else tuple(np.quantile(own_N, [0.025, 0.975]).tolist())
        cells[row][name] = Cell(value=ranks[number], ci95=interval, samples_N=own_N)


def _no_rank(own: Sequence[Cell], row: Row) -> str:
    if row.how == "best":
        return "not ranked: taken from other rows"
    gaps = dict.fromkeys(cell.gap for cell in own if cell.gap)
    return "; ".join(gaps) or "fewer than two rows to rank"


def _rank_samples(
    cells: Cells, rows: Sequence[str], columns: Sequence[str], better: Sequence[str]
) -> Float[np.ndarray, "N K"] | None:
    """AVG Rank when the utterances of every set are resampled, the same ones for all rows."""
    costs = []
    for number, (column, way) in enumerate(zip(columns, better, strict=True)):
        pooled = [_mean_sums(list(cells[row][column].sums.values())) for row in rows]
        known = [place for place, sums in enumerate(pooled) if sums is not None]
        with_value = sum(cells[row][column].value is not None for row in rows)
        if len(known) < with_value or len({pooled[place].ids for place in known}) != 1:
            return None  # not on the same utterances
        ratios_KN = bootstrap_ratios(
            np.stack([pooled[place].numerators_U for place in known]),
            pooled[known[0]].denominators_U,
            seed=number,
        )
        cost_KN = np.full((len(rows), ratios_KN.shape[1]), np.inf)
        cost_KN[known] = ratios_KN if way == "lower" else -ratios_KN
        costs.append(cost_KN)
    # Equal rows share a rank here: the order of a table must not count as proof.
    return rankdata(np.nan_to_num(np.stack(costs), nan=np.inf), axis=1).mean(0).T
