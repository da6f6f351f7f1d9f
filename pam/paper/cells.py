"""The cells of a table, from stored results: means over seeds and rows, averages and ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from pam.paper.spec import Column, TableSpec
from pam.paper.store import Store, stored_runs
from pam.report.store import sums_of
from pam.score import on_request
from pam.score.combine import averages, ranks
from pam.score.compare import Cell, Cells, mean_sums, summary


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
        remedy = f" (--metrics {column.metric} of the recipe)" if on_request(column.metric) else ""
        unknown = f"{column.metric} of {column.set} was not scored{remedy}"
        return Cell(gap=next(filter(None, reasons), unknown))
    return summary({seed: sums_of(entry, column.metric) for seed, entry in scored.items()})


def mean(members: Mapping[str, Cell]) -> Cell:
    """The mean over other rows of one column; it needs all of them.

    Its seeds are the members' first seeds together, their second ones, and so on: as many as the
    member with the fewest has.
    """
    if absent := [name for name, cell in members.items() if cell.value is None]:
        reasons = {members[name].gap for name in absent}
        return Cell(gap=f"needs {', '.join(absent)}: {'; '.join(sorted(map(str, reasons)))}")
    cells = list(members.values())
    turns = zip(*([cell.sums[seed] for seed in sorted(cell.sums)] for cell in cells), strict=False)
    sums = {turn: mean_sums(found) for turn, found in enumerate(turns)}
    if not sums or None in sums.values():
        return Cell(value=fmean(cell.value for cell in cells))
    return summary(sums)


def best(members: Mapping[str, Cell], column: Column) -> Cell:
    """The best of other rows in one column, without an interval: it was chosen by its value."""
    cells = [cell for cell in members.values() if cell.value is not None]
    if not cells:
        return Cell(gap=f"needs one of {', '.join(members)}")
    return replace(column.best(cells), ci95=None, sd=None, sums={}, by_seed={})


def add_averages(cells: Cells, spec: TableSpec, name: str, columns: Sequence[str]) -> None:
    """Over the columns that the scale has. A best row takes the mean of its members' averages."""
    there = [column for column in columns if not spec.columns[column].missing]
    complete = []
    for row in spec.all_rows.values():
        absent = [column for column in there if cells[row.name][column].value is None]
        cells[row.name][name] = Cell(gap=f"needs {', '.join(absent or columns)}")
        if row.how != "best" and there and not absent:
            complete.append(row.name)
    found = averages([[cells[row][column] for column in there] for row in complete])
    for row, cell in zip(complete, found, strict=True):
        cells[row][name] = cell
    for row in (row for row in spec.all_rows.values() if row.how == "best"):
        values = [cells[member][name].value for member in row.members]
        if known := [value for value in values if value is not None]:
            cells[row.name][name] = Cell(value=fmean(known))


def add_ranks(cells: Cells, spec: TableSpec, name: str, columns: Sequence[str]) -> None:
    """Among the shown rows that have a value, over the columns in which one of them has."""
    there = ranked_columns(cells, spec, columns)
    ranked = []
    for row in spec.rows.values():
        own = [cells[row.name][c] for c in columns if not spec.columns[c].missing]
        gaps = dict.fromkeys(cell.gap for cell in own if cell.gap)
        why = "; ".join(gaps) or "fewer than two rows to rank"
        if row.how == "best":
            why = "not ranked: taken from other rows"
        elif any(cells[row.name][c].value is not None for c in there):
            ranked.append(row.name)
        cells[row.name][name] = Cell(gap=why)
    if len(ranked) > 1:
        better = [spec.columns[column].better for column in there]
        found = ranks([[cells[row][column] for column in there] for row in ranked], better)
        for row, cell in zip(ranked, found, strict=True):
            cells[row][name] = cell


def ranked_columns(cells: Cells, spec: TableSpec, columns: Sequence[str]) -> list[str]:
    """Those of a rank's columns in which a shown row has a value."""
    return [c for c in columns if any(cells[row][c].value is not None for row in spec.rows)]
