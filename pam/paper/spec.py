"""Read conf/tables: the systems and sets of a paper table, at one scale."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pam.config import plain, require
from pam.config.documents import SIX, PaperTable, TableRow, TableScale, reason_of, scored_names
from pam.config.experiment import compose, read_layer, select_encoders
from pam.errors import PamError
from pam.paper import check
from pam.paths import CONF
from pam.registry import nearest
from pam.score.compare import Cell
from pam.score.metric import metric_called

THE_SIX = (
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
    seeds: int  # planned, of each system
    conf: PaperTable
    added: dict[str, str]  # the encoders of rows that are not the scale's, and their models

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
    return check.table_names(CONF)


def table_name(text: str) -> str:
    """`1` is table01, `13` table13; other names stay."""
    known = table_names()
    name = f"table{text.lstrip('0').zfill(2)}" if text.isdecimal() else text
    if name not in known:
        raise PamError(f"--table {text!r}: {nearest(name, known)}, all")
    return name


def load_spec(name: str, scale: str, conf: Path = CONF) -> TableSpec:
    """conf/tables/NAME.yaml at a scale.

    Raises:
        PamError: an unknown key, row, system, set, encoder or LLM, with the file.
    """
    file = conf / "tables" / f"{name}.yaml"
    table, has = check.read_table(file), check.read_scale(scale, conf)
    own = _own(scale, conf)
    hidden: dict[str, Row] = {}
    added = _added(table, has)
    if table.rows_of:
        check.check_known(table.rows_of, check.table_names(conf), f"{file}: rows_of: unknown table")
        source = conf / "tables" / f"{table.rows_of}.yaml"
        other = check.read_table(source)
        hidden = _rows(other, has, own, conf, source)
        added |= _added(other, has)
    shown = tuple(THE_SIX if table.columns is None else table.columns)
    ranks = {k: THE_SIX if v == SIX else tuple(v) for k, v in (table.rank or {}).items()}
    averages = {k: tuple(v) for k, v in (table.averages or {}).items()}
    needed = dict.fromkeys([*shown, *(c for v in [*ranks.values(), *averages.values()] for c in v)])
    spec = TableSpec(
        name=name,
        title=table.title,
        kind=table.kind or check.SYSTEMS,
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
        seeds=has.seeds.get(name, 1),
        conf=table,
        added=added,
    )
    _check_names(spec, file)
    return spec


def _own(scale: str, conf: Path) -> dict[str, Any]:
    file = conf / "scale" / f"{scale}.yaml"
    own = read_layer(file)
    require(own, ["encoders"], str(file))
    return own


def _added(table: PaperTable, has: TableScale) -> dict[str, str]:
    names = [name for row in (table.rows or {}).values() for name in row.encoders or []]
    there = {name: has.encoders[name] for name in names if name in has.encoders}
    return {name: entry["path"] for name, entry in there.items() if not reason_of(entry)}


def _rows(
    table: PaperTable, has: TableScale, own: Mapping[str, Any], conf: Path, file: Path
) -> dict[str, Row]:
    systems = [path.stem for path in (conf / "systems").glob("*.yaml")]
    rows = (table.rows or {}).items()
    made = {name: _row(name, row, has, own, systems, f"{file}: row {name}") for name, row in rows}
    for row in made.values():
        if row.system and not row.missing:
            _check_system(
                row, own, conf / "systems" / f"{row.system}.yaml", f"{file}: row {row.name}"
            )
    return made


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
    check.check_known(row.system, systems, f"{where}: unknown system")
    if row.llm:
        check.check_known(row.llm, has.llms, f"{where}: unknown LLM")
    if row.set and not row.variant:
        raise PamError(f"{where}: set changes the system: name it, with variant")
    names = row.encoders or []
    encoders = {encoder: has.encoders[encoder] for encoder in names if encoder in has.encoders}
    if names and _are_all(names, encoders, own, where):
        names = []  # the same experiment as without a choice
    llm = row.llm and has.llms[row.llm]
    missing = next(filter(None, map(reason_of, [*encoders.values(), llm])), None)
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
    parts = [part for part in (*names, row.llm, row.variant) if part is not None]
    check.check_parts_of_name(parts, where)
    check.check_options(options, where)
    variant = "".join(f"-{part}" for part in parts)
    return Row(name, "system", row.system, tuple(options), variant, missing=missing)


def _check_system(row: Row, own: Mapping[str, Any], file: Path, where: str) -> None:
    """Refuse options that training would refuse, perhaps hours later."""
    system = read_layer(file)
    try:
        compose(own, system, row.options)
    except PamError as error:
        raise PamError(f"{where}: {error}") from error


def _are_all(
    names: Sequence[str], added: Mapping[str, Any], own: Mapping[str, Any], where: str
) -> bool:
    """Whether the names choose all encoders of the scale, and no `added` one."""
    every = own["encoders"]
    try:
        chosen = select_encoders({**every, **added}, list(names), own.get("stand_ins") or {})
    except PamError as error:
        raise PamError(f"{where}: {error}") from error
    return chosen.keys() == every.keys()


def _column(name: str, has: TableScale, file: Path) -> Column:
    """`audiocaps_qa_meteor` is METEOR on the set that the scale has for `audiocaps_qa`."""
    metrics = scored_names()
    ends = [metric for metric in metrics if name.endswith(f"_{metric}")]
    place, _, metric = name.rpartition("_")
    if ends:
        metric = max(ends, key=len)
        place = name.removesuffix(f"_{metric}")
    check.check_known(place, has.sets, f"{file}: column {name!r}: unknown set")
    check.check_known(metric, metrics, f"{file}: column {name!r}: unknown metric")
    reason = reason_of(has.sets[place])
    return Column(name, metric, None if reason else has.sets[place], reason)


def _claim(claim: Mapping[str, Any], shown: Sequence[str]) -> Claim:
    better, than = (
        (rows,) if isinstance(rows, str) else tuple(rows)
        for rows in (claim["better"], claim["than"])
    )
    return Claim(claim["says"], better, than, tuple(claim.get("in") or shown))


def _check_names(spec: TableSpec, file: Path) -> None:
    """PamError for the name of a row or column that does not exist, or that two things have."""
    _check_own_names(spec, file)
    _check_members(spec, file)
    rows = [spec.reference] if spec.reference else []
    delta = spec.conf.delta
    rows += [*delta.over, *delta.rows] if delta else []
    rows += [name for claim in spec.claims for name in (*claim.better, *claim.than)]
    for name in rows:
        check.check_known(name, spec.all_rows, f"{file}: unknown row")
    for name in (name for claim in spec.claims for name in claim.columns):
        check.check_known(name, [*spec.columns, *spec.ranks], f"{file}: unknown column")
    ranked = [spec.reference] if spec.reference and spec.ranks else []
    for claim in (claim for claim in spec.claims if spec.ranks.keys() & {*claim.columns}):
        ranked += [*claim.better, *claim.than]
    if unranked := [name for name in ranked if name not in spec.rows]:
        what = "has no rank: ranks are of this table's own rows"
        raise PamError(f"{file}: row {unranked[0]!r} {what}")


def _check_own_names(spec: TableSpec, file: Path) -> None:
    columns = [*spec.columns, *spec.ranks, *spec.averages]
    twice = [f"column {name!r}" for name in spec.columns | spec.ranks if columns.count(name) > 1]
    twice += [f"row {name!r} (rows_of has it too)" for name in spec.rows if name in spec.hidden]
    if twice:
        raise PamError(f"{file}: {twice[0]}: two have this name: rename one")
    seen: dict[str, Row] = {}
    for row in spec.systems():
        other = seen.setdefault(row.system + row.variant, row)
        both_shown = row is not other and {row.name, other.name} <= spec.rows.keys()
        if both_shown and other.options == row.options and not row.missing:
            raise PamError(
                f"{file}: rows {other.name} and {row.name} are the same experiment at the scale "
                f"{spec.scale}: remove one, or give it other encoders"
            )
        if other.options != row.options:
            raise PamError(
                f"{file}: rows {other.name} and {row.name}: their experiments would have the same "
                "name: give one another variant"
            )


def _check_members(spec: TableSpec, file: Path) -> None:
    """The rows of a mean must exist, and be computed before it."""
    before: list[str] = []
    for row in spec.all_rows.values():
        for name in row.members:
            check.check_known(name, spec.all_rows, f"{file}: row {row.name}: unknown row")
            if spec.all_rows[name].members and name not in before:
                raise PamError(f"{file}: row {row.name}: {row.how} of {name!r}: it must be earlier")
        before.append(row.name)
