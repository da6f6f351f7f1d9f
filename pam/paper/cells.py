"""The cells of a table, from stored results: means over seeds and rows, and columns of columns."""

from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from pam.paper.combined import add_averages, add_ranks
from pam.paper.spec import Column, TableSpec
from pam.paper.store import Store, stored_runs, sums_of
from pam.score.compare import Cell, Cells, mean_sums, summary

ALWAYS = ("wer", "accuracy", "meteor")  # other metrics are scored where they are asked for


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
        add_averages(cells, spec, name, columns)
    for name, columns in spec.ranks.items():
        add_ranks(cells, spec, name, columns)
    return cells


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
    return summary({seed: sums_of(entry, column.metric) for seed, entry in scored.items()})


def _remedy(column: Column) -> str:
    return "" if column.metric in ALWAYS else f" (--metrics {column.metric} of the recipe)"


def mean(members: Mapping[str, Cell]) -> Cell:
    """The mean over other rows of one column; it needs all of them."""
    if absent := [name for name, cell in members.items() if cell.value is None]:
        reasons = {members[name].gap for name in absent}
        return Cell(gap=f"needs {', '.join(absent)}: {'; '.join(sorted(map(str, reasons)))}")
    cells = list(members.values())
    seeds = set.intersection(*(set(cell.sums) for cell in cells))
    sums = {seed: mean_sums([cell.sums[seed] for cell in cells]) for seed in sorted(seeds)}
    if not seeds or None in sums.values():
        return Cell(value=fmean(cell.value for cell in cells))
    return summary(sums)


def best(members: Mapping[str, Cell], column: Column) -> Cell:
    """The best of other rows in one column, without an interval: it was chosen by its value."""
    cells = [cell for cell in members.values() if cell.value is not None]
    if not cells:
        return Cell(gap=f"needs one of {', '.join(members)}")
    choose = min if column.better == "lower" else max
    chosen = choose(cells, key=lambda cell: cell.value)
    return replace(chosen, ci95=None, sd=None, sums={}, by_seed={})
