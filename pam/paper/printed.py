"""The numbers that the paper prints, from paper.yaml in this folder."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pam.config import check_keys, load_yaml

PAPER = Path(__file__).with_name("paper.yaml")

Cell = float | int | str | None


@dataclass(frozen=True)
class Column:
    """`better`: "lower", "higher", or None where the column is no score."""

    label: str
    unit: str
    better: str | None


@dataclass(frozen=True)
class Row:
    label: str
    group: str | None


@dataclass(frozen=True)
class PrintedTable:
    """One table; `cells[row][column]` is None where the paper prints no value."""

    title: str
    columns: Mapping[str, Column]
    rows: Mapping[str, Row]
    cells: Mapping[str, Mapping[str, Cell]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Erratum:
    """What is printed at `where` (TABLE/ROW/COLUMN, or a part of it), and what is found instead."""

    where: str
    printed: str
    finding: str


@functools.cache
def load_paper() -> Mapping[str, PrintedTable]:
    """{"table_1": …, "table_1_delta": …, "table_2": …, …, "table_13": …, "text": …}."""
    return {name: _table(name, entry) for name, entry in _content()["tables"].items()}


def printed_table(name: str | None) -> PrintedTable:
    """One of `load_paper`; an empty one for None, where the paper's own table is lost."""
    return load_paper()[name] if name else PrintedTable("", {}, {}, {})


@functools.cache
def load_errata() -> Mapping[str, Erratum]:
    """Where the paper contradicts itself or its sources, by a short name."""
    return {name: Erratum(**entry) for name, entry in _content()["errata"].items()}


@functools.cache
def _content() -> dict[str, Any]:
    content = load_yaml(PAPER)
    check_keys(content, ("tables", "errata"), str(PAPER))
    return content


def _table(name: str, entry: Mapping[str, Any]) -> PrintedTable:
    columns = {key: Column(**value) for key, value in entry["columns"].items()}
    rows, cells = {}, {}
    for key, row in entry["rows"].items():
        assert len(row["cells"]) == len(columns), f"{PAPER}: {name}/{key}"
        rows[key] = Row(row["label"], row["group"])
        cells[key] = dict(zip(columns, row["cells"], strict=True))
    return PrintedTable(entry["title"], columns, rows, cells, tuple(entry.get("notes", ())))
