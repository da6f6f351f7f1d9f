"""conf/tables: which systems on which sets make a table of the paper, at one scale."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pam.config import check_keys, load_yaml
from pam.errors import UserError
from pam.registry import nearest
from pam.score.metric import metric_called

CONF = Path(__file__).resolve().parents[2] / "conf"
SCALES = "scales"  # the file that says what a scale has for the paper's sets, encoders and LLMs
SIX = (
    "librispeech_test_clean_wer",
    "librispeech_test_other_wer",
    "ami_wer",
    "snv_accuracy",
    "audiocaps_meteor",
    "audiocaps_qa_meteor",
)
KEYS = (
    *("title", "kind", "paper", "reference", "columns", "rank", "averages", "rows", "rows_of"),
    *("delta", "claims", "tasks", "prompts", "parameters"),
)
ROW_KEYS = {
    "system": ("system", "encoders", "llm", "set", "variant"),
    "mean": ("mean",),
    "best": ("best",),
}


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
    """What the paper says: each of `better` beats each of `than` in each of `columns`."""

    says: str
    better: tuple[str, ...]
    than: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Delta:
    """Gains of `rows` over the best of the rows `over`."""

    title: str
    paper: str | None
    over: tuple[str, ...]
    rows: tuple[str, ...]


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
    delta: Delta | None
    claims: tuple[Claim, ...]
    conf: dict[str, Any]

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
        """The rows that are trained, the hidden ones too, whether or not the scale has them."""
        yield from (row for row in self.all_rows.values() if row.how == "system")


def table_names(folder: Path | None = None) -> list[str]:
    """The names of all tables, in C order."""
    folder = folder or CONF / "tables"
    return sorted(file.stem for file in folder.glob("*.yaml") if file.stem != SCALES)


def table_name(text: str, folder: Path | None = None) -> str:
    """`1` is table01, `13` table13; other names stand for themselves."""
    known = table_names(folder)
    name = f"table{int(text):02d}" if text.isdecimal() else text
    if name not in known:
        raise UserError(f"--table {text!r}: {nearest(name, known)}, all")
    return name


def load_spec(name: str, scale: str, conf: Path = CONF) -> TableSpec:
    """conf/tables/NAME.yaml at a scale.

    Raises:
        UserError: an unknown key, row, system, set, encoder or LLM, with the file.
    """
    file = conf / "tables" / f"{name}.yaml"
    table, has = load_yaml(file), _scale(scale, conf)
    check_keys(table, KEYS, str(file))
    rows = _rows(table.get("rows") or {}, has, conf, file)
    hidden: dict[str, Row] = {}
    if other := table.get("rows_of"):
        source = conf / "tables" / f"{other}.yaml"
        hidden = _rows(load_yaml(source)["rows"], has, conf, source)
    shown = tuple(table.get("columns", SIX))
    ranks = {k: _columns_named(v) for k, v in (table.get("rank") or {}).items()}
    averages = {k: tuple(v) for k, v in (table.get("averages") or {}).items()}
    needed = dict.fromkeys([*shown, *(c for v in [*ranks.values(), *averages.values()] for c in v)])
    columns = {c: _column(c, has, file) for c in needed}
    delta = table.get("delta")
    spec = TableSpec(
        name=name,
        title=str(table["title"]),
        kind=table.get("kind", "systems"),
        scale=scale,
        paper=table.get("paper"),
        paper_sets=has["paper_sets"],
        reference=table.get("reference"),
        rows=rows,
        hidden=hidden,
        columns=columns,
        shown=shown,
        ranks=ranks,
        averages=averages,
        delta=delta
        and Delta(delta["title"], delta.get("paper"), tuple(delta["over"]), tuple(delta["rows"])),
        claims=tuple(_claim(claim, shown, file) for claim in table.get("claims") or ()),
        conf=table,
    )
    _check_names(spec, file)
    return spec


def _scale(scale: str, conf: Path) -> dict[str, Any]:
    file = conf / "tables" / f"{SCALES}.yaml"
    scales = load_yaml(file)
    if scale not in scales:
        raise UserError(f"{file}: says nothing of scale {scale!r}: {nearest(scale, scales)}")
    check_keys(scales[scale], ("paper_sets", "sets", "encoders", "llms"), f"{file}: {scale}")
    return scales[scale]


def _rows(
    entries: Mapping[str, Mapping[str, Any]], has: Mapping[str, Any], conf: Path, file: Path
) -> dict[str, Row]:
    return {str(name): _row(str(name), entry, has, conf, file) for name, entry in entries.items()}


def _row(
    name: str, entry: Mapping[str, Any], has: Mapping[str, Any], conf: Path, file: Path
) -> Row:
    how = next((kind for kind in ROW_KEYS if kind in entry), "system")
    check_keys(entry, ROW_KEYS[how], f"{file}: row {name}")
    if how != "system":
        return Row(name, how, members=tuple(entry[how]))
    systems = [path.stem for path in (conf / "systems").glob("*.yaml")]
    if entry.get("system") not in systems:
        hint = nearest(str(entry.get("system")), systems)
        raise UserError(f"{file}: row {name}: unknown system {entry.get('system')!r}: {hint}")
    encoders, llm = entry.get("encoders") or [], entry.get("llm")
    known = {
        encoder: has["encoders"][encoder] for encoder in encoders if encoder in has["encoders"]
    }
    if llm is not None and llm not in has["llms"]:
        raise UserError(f"{file}: row {name}: unknown LLM {llm!r}: {nearest(llm, has['llms'])}")
    reasons = [_missing(spec) for spec in [*known.values(), llm and has["llms"][llm]]]
    missing = next(filter(None, reasons), None)
    options = [] if missing else [f"encoders.{e}={_flow(spec)}" for e, spec in known.items()]
    if encoders:
        options.append(f"use_encoders=[{','.join(encoders)}]")
    if llm and not missing:
        options.append(f"llm_conf.path={has['llms'][llm]}")
    options += entry.get("set") or []
    variant = "".join(f"-{part}" for part in [*encoders, llm, entry.get("variant")] if part)
    return Row(name, how, entry["system"], tuple(options), variant, missing=missing)


def _flow(spec: Mapping[str, Any]) -> str:
    """One word for the command line that YAML reads as the mapping."""
    return json.dumps(spec, separators=(",", ":"))


def _missing(entry: Any) -> str | None:
    return entry.get("missing") if isinstance(entry, Mapping) else None


def _column(name: str, has: Mapping[str, Any], file: Path) -> Column:
    """`audiocaps_qa_meteor` is METEOR on the set that the scale has for `audiocaps_qa`."""
    place, _, metric = name.rpartition("_")
    if place not in has["sets"]:
        raise UserError(f"{file}: column {name!r}: unknown set: {nearest(place, has['sets'])}")
    found = has["sets"][place]
    if reason := _missing(found):
        return Column(name, metric, missing=reason)
    return Column(name, metric, found)


def _columns_named(value: str | Sequence[str]) -> tuple[str, ...]:
    return SIX if value == "six" else tuple(value)


def _claim(claim: Mapping[str, Any], shown: Sequence[str], file: Path) -> Claim:
    check_keys(claim, ("says", "better", "than", "in"), f"{file}: claim")
    better, than = (
        (claim[key],) if isinstance(claim[key], str) else tuple(claim[key])
        for key in ("better", "than")
    )
    return Claim(claim["says"], better, than, tuple(claim.get("in") or shown))


def _check_names(spec: TableSpec, file: Path) -> None:
    """Every row and column that is named is there."""
    rows = [spec.reference] if spec.reference else []
    rows += [name for row in spec.rows.values() for name in row.members]
    rows += [*spec.delta.over, *spec.delta.rows] if spec.delta else []
    rows += [name for claim in spec.claims for name in (*claim.better, *claim.than)]
    columns = [name for claim in spec.claims for name in claim.columns]
    for kind, names, known in (
        ("row", rows, spec.all_rows),
        ("column", columns, [*spec.columns, *spec.ranks]),
    ):
        for name in names:
            if name not in known:
                raise UserError(f"{file}: unknown {kind} {name!r}: {nearest(name, known)}")
