"""The paper's own figures, from paper.yaml beside this file."""

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
class PaperTable:
    """One table; `cells[row][column]` is None where the paper prints no value."""

    title: str
    columns: Mapping[str, Column]
    rows: Mapping[str, Row]
    cells: Mapping[str, Mapping[str, Cell]]
    notes: tuple[str, ...] = ()

    def column(self, name: str) -> list[Cell]:
        """The cells of one column, in the order of the rows."""
        return [row[name] for row in self.cells.values()]


@dataclass(frozen=True)
class Erratum:
    """What is printed at `where` (TABLE/ROW/COLUMN, or a part of it), and what is found instead."""

    where: str
    printed: str
    finding: str


@functools.cache
def load_paper() -> Mapping[str, PaperTable]:
    """{"table_1": …, "table_1_delta": …, "table_2": …, …, "table_13": …, "text": …}."""
    return {name: _table(name, entry) for name, entry in _content()["tables"].items()}


@functools.cache
def load_errata() -> Mapping[str, Erratum]:
    """Where the paper contradicts itself or its sources, by a short name."""
    return {name: Erratum(**entry) for name, entry in _content()["errata"].items()}


@functools.cache
def _content() -> dict[str, Any]:
    content = load_yaml(PAPER)
    check_keys(content, ("tables", "errata"), str(PAPER))
    return content


def _table(name: str, entry: Mapping[str, Any]) -> PaperTable:
    columns = {key: Column(**value) for key, value in entry["columns"].items()}
    rows, cells = {}, {}
    for key, row in entry["rows"].items():
        assert len(row["cells"]) == len(columns), f"{PAPER}: {name}/{key}"
        rows[key] = Row(row["label"], row["group"])
        cells[key] = dict(zip(columns, row["cells"], strict=True))
    return PaperTable(entry["title"], columns, rows, cells, tuple(entry.get("notes", ())))
