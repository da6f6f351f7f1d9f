"""Read conf/tables: the systems and sets of a paper table, at one scale."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pam.config import keys_of, load_yaml, plain, require, typed
from pam.config.documents import PaperTable, TableRow, TableScale
from pam.config.experiment import read_layer, select_encoders
from pam.config.keys import check
from pam.errors import PamError
from pam.paths import CONF
from pam.registry import nearest
from pam.score.compare import Cell
from pam.score.metric import metric_called

SCALES = "scales"  # the file that says what a scale has for the paper's sets, encoders and LLMs
SIX = (
    *("librispeech_test_clean_wer", "librispeech_test_other_wer", "ami_wer"),
    *("snv_accuracy", "audiocaps_meteor", "audiocaps_qa_meteor"),
)


@dataclass(frozen=True)
class Column:
    """A metric of a set: `name` is the paper's, `set` the scale's, or `missing` says why not."""

    name: str
    metric: str
    set: str | None = None
    missing: str | None = None

    @property
    def better(self) -> str:
        return "higher" if metric_called(self.metric).higher_is_better else "lower"

    def best(self, cells: Iterable[Cell]) -> Cell:
        """The best of cells that have values."""
        choose = min if self.better == "lower" else max
        return choose(cells, key=lambda cell: cell.value)


@dataclass(frozen=True)
class Row:
    """A system, or what is computed from the rows `members` (`how`: mean or best)."""

    name: str
    how: str
    system: str = ""
    options: tuple[str, ...] = ()  # of --set
    variant: str = ""
    members: tuple[str, ...] = ()
    missing: str | None = None

    def experiment(self, scale: str, budget: str, seed: int) -> str:
        """Its folder under exp/; without a variant that of the recipe's own defaults."""
        return f"{self.system}{self.variant}_{scale}_{budget}_s{seed}"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: each of `better` beats each of `than` in each of `columns`."""

    says: str
    better: tuple[str, ...]
    than: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class TableSpec:
    """A table at a scale. `rows` are shown; `hidden` are rows of another table that they need."""

    name: str
    title: str
    kind: str
    scale: str
    paper: str | None
    paper_sets: bool
    reference: str | None
    rows: dict[str, Row]
    hidden: dict[str, Row]
    columns: dict[str, Column]
    shown: tuple[str, ...]
    ranks: dict[str, tuple[str, ...]]
    averages: dict[str, tuple[str, ...]]
    claims: tuple[Claim, ...]
    conf: PaperTable

    @property
    def all_rows(self) -> dict[str, Row]:
        return self.hidden | self.rows

    def less_is_better(self, column: str) -> bool:
        """Of a column, an average of columns or a rank."""
        if column in self.ranks:
            return True
        name = self.averages[column][0] if column in self.averages else column
        return self.columns[name].better == "lower"

    def systems(self) -> Iterator[Row]:
        """The rows of systems, also hidden ones and those that the scale lacks."""
        yield from (row for row in self.all_rows.values() if row.how == "system")


def table_names() -> list[str]:
    """The names of all tables, in C order."""
    return sorted(path.stem for path in CONF.glob("tables/*.yaml") if path.stem != SCALES)


def table_name(text: str) -> str:
    """`1` is table01, `13` table13; other names stay."""
    known = table_names()
    name = f"table{int(text):02d}" if text.isdecimal() else text
    if name not in known:
        raise PamError(f"--table {text!r}: {nearest(name, known)}, all")
    return name


def load_spec(name: str, scale: str, conf: Path = CONF) -> TableSpec:
    """conf/tables/NAME.yaml at a scale.

    Raises:
        PamError: an unknown key, row, system, set, encoder or LLM, with the file.
    """
    file = conf / "tables" / f"{name}.yaml"
    table, has = _read(file), _scale(scale, conf)
    own = read_layer(conf / "scale" / f"{scale}.yaml")
    hidden: dict[str, Row] = {}
    if table.rows_of:
        source = conf / "tables" / f"{table.rows_of}.yaml"
        hidden = _rows(_read(source), has, own, conf, source)
    shown = tuple(SIX if table.columns is None else table.columns)
    ranks = {k: SIX if v == "six" else tuple(v) for k, v in (table.rank or {}).items()}
    averages = {k: tuple(v) for k, v in (table.averages or {}).items()}
    needed = dict.fromkeys([*shown, *(c for v in [*ranks.values(), *averages.values()] for c in v)])
    spec = TableSpec(
        name=name,
        title=table.title,
        kind=table.kind or "systems",
        scale=scale,
        paper=table.paper,
        paper_sets=has.paper_sets,
        reference=table.reference,
        rows=_rows(table, has, own, conf, file),
        hidden=hidden,
        columns={column: _column(column, has, file) for column in needed},
        shown=shown,
        ranks=ranks,
        averages=averages,
        claims=tuple(_claim(claim, shown) for claim in table.claims or ()),
        conf=table,
    )
    _check_names(spec, file)
    return spec


def _read(file: Path) -> PaperTable:
    table = load_yaml(file)
    check(table, keys_of(PaperTable), str(file))
    require(table, ["title"], str(file))
    return typed(PaperTable, table)


def _scale(scale: str, conf: Path) -> TableScale:
    file = conf / "tables" / f"{SCALES}.yaml"
    scales = load_yaml(file)
    if scale not in scales:
        raise PamError(f"{file}: has no scale {scale!r}: {nearest(scale, scales)}")
    check(scales[scale], keys_of(TableScale), f"{file}: {scale}")
    return typed(TableScale, scales[scale])


def _rows(
    table: PaperTable, has: TableScale, own: Mapping[str, Any], conf: Path, file: Path
) -> dict[str, Row]:
    systems = [path.stem for path in (conf / "systems").glob("*.yaml")]
    rows = (table.rows or {}).items()
    return {
        str(name): _row(str(name), row, has, own, systems, f"{file}: row {name}")
        for name, row in rows
    }


def _row(
    name: str,
    row: TableRow,
    has: TableScale,
    own: Mapping[str, Any],
    systems: Sequence[str],
    where: str,
) -> Row:
    given = plain(row)
    if "mean" in given or "best" in given:
        if len(given) > 1:
            raise PamError(f"{where}: {' and '.join(given)}: leave out one of them")
        how, members = given.popitem()
        return Row(name, how, members=tuple(members))
    if row.system not in systems:
        hint = nearest(str(row.system), systems)
        raise PamError(f"{where}: unknown system {row.system!r}: {hint}")
    if row.llm and row.llm not in has.llms:
        raise PamError(f"{where}: unknown LLM {row.llm!r}: {nearest(row.llm, has.llms)}")
    names = row.encoders or []
    encoders = {encoder: has.encoders[encoder] for encoder in names if encoder in has.encoders}
    if names and not encoders and _are_all(names, own):
        names = []  # the same experiment as without a choice
    llm = row.llm and has.llms[row.llm]
    missing = next(filter(None, map(_missing, [*encoders.values(), llm])), None)
    options = []
    if not missing:  # each is one word of the command line
        options += [
            f"encoders.{e}={json.dumps(v, separators=(',', ':'))}" for e, v in encoders.items()
        ]
    if names:
        options.append(f"use_encoders=[{','.join(names)}]")
    if llm and not missing:
        options.append(f"llm_conf.path={llm}")
    options += row.set or []
    variant = "".join(f"-{part}" for part in [*names, row.llm, row.variant] if part)
    return Row(name, "system", row.system, tuple(options), variant, missing=missing)


def _are_all(names: Sequence[str], own: Mapping[str, Any]) -> bool:
    every = own["encoders"]
    return select_encoders(every, list(names), own.get("stand_ins") or {}).keys() == every.keys()


def _missing(entry: Any) -> str | None:
    return entry.get("missing") if isinstance(entry, Mapping) else None


def _column(name: str, has: TableScale, file: Path) -> Column:
    """`audiocaps_qa_meteor` is METEOR on the set that the scale has for `audiocaps_qa`."""
    place, _, metric = name.rpartition("_")
    if place not in has.sets:
        raise PamError(f"{file}: column {name!r}: unknown set: {nearest(place, has.sets)}")
    reason = _missing(has.sets[place])
    return Column(name, metric, None if reason else has.sets[place], reason)


def _claim(claim: Mapping[str, Any], shown: Sequence[str]) -> Claim:
    better, than = (
        (rows,) if isinstance(rows, str) else tuple(rows)
        for rows in (claim["better"], claim["than"])
    )
    return Claim(claim["says"], better, than, tuple(claim.get("in") or shown))


def _check_names(spec: TableSpec, file: Path) -> None:
    """PamError for the name of a row or column that does not exist."""
    rows = [spec.reference] if spec.reference else []
    rows += [name for row in spec.rows.values() for name in row.members]
    delta = spec.conf.delta
    rows += [*delta.over, *delta.rows] if delta else []
    rows += [name for claim in spec.claims for name in (*claim.better, *claim.than)]
    columns = [name for claim in spec.claims for name in claim.columns]
    for kind, names, known in (
        ("row", rows, spec.all_rows),
        ("column", columns, [*spec.columns, *spec.ranks]),
    ):
        for name in names:
            if name not in known:
                raise PamError(f"{file}: unknown {kind} {name!r}: {nearest(name, known)}")
