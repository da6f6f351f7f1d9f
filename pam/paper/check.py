"""Read conf/tables, and check what the keys alone (`pam.config.documents`) do not say."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pam.config import keys_of, load_yaml, require, typed
from pam.config.documents import PaperTable, TableDelta, TableScale, reason_of
from pam.config.keys import check
from pam.config.schema import Encoder
from pam.errors import PamError
from pam.paper.printed import load_paper
from pam.registry import nearest

SCALES = "scales"  # the file that says what a scale has for the paper's sets, encoders and LLMs
SYSTEMS = "systems"  # the kind of a table that names none
NEEDS = {  # the keys that a kind cannot do without
    SYSTEMS: ("rows",),
    "data": ("paper", "tasks"),
    "prompts": ("rows", "prompts"),
    "similarity": ("paper", "rows"),
    "sizes": ("paper",),
    "weights": ("rows",),
}
OF_DATA = {"hours", "samples"}  # the paper's columns that a table of data shows
PART_OF_A_NAME = re.compile(r"[A-Za-z0-9._+-]+")
OPTION = re.compile(r"[^\s=]+=\S*")


def table_names(conf: Path) -> list[str]:
    """The names of all tables, in C order."""
    return sorted(path.stem for path in conf.glob("tables/*.yaml") if path.stem != SCALES)


def check_known(name: str, known: Iterable[str], where: str) -> None:
    known = list(known)
    if name not in known:
        raise PamError(f"{where} {name!r}: {nearest(name, known)}")


def read_table(file: Path) -> PaperTable:
    """PamError for an unknown key, a wrong value, or a key that is missing."""
    conf = load_yaml(file)
    check(conf, keys_of(PaperTable), str(file))
    require(conf, ["title"], str(file))
    table = typed(PaperTable, conf)
    kind = table.kind or SYSTEMS
    filled = {key: value for key, value in conf.items() if value}
    require(filled, NEEDS.get(kind, ()), f"{file}: kind {kind}")
    for number, claim in enumerate(table.claims or (), 1):
        require(claim, ("says", "better", "than"), f"{file}: claim {number}")
    if table.paper:
        check_known(table.paper, load_paper(), f"{file}: paper: unknown table")
    if table.delta:
        _check_delta(table.delta, conf["delta"], f"{file}: delta")
    if kind == "data":
        _check_tasks(table, str(file))
    return table


def _check_delta(delta: TableDelta, conf: Mapping[str, Any], where: str) -> None:
    require(conf, ("title", "over", "rows"), where)
    if delta.paper:
        check_known(delta.paper, load_paper(), f"{where}.paper: unknown table")


def _check_tasks(table: PaperTable, where: str) -> None:
    paper = load_paper()[table.paper]
    if not paper.columns.keys() >= OF_DATA:
        columns = " and ".join(sorted(OF_DATA))
        raise PamError(f"{where}: paper: {table.paper!r} has no columns {columns}: give table_5")
    for task, row in table.tasks.items():
        check_known(row, paper.rows, f"{where}: tasks.{task}: unknown row")


def read_scale(scale: str, conf: Path) -> TableScale:
    """The scale's section of conf/tables/scales.yaml."""
    file = conf / "tables" / f"{SCALES}.yaml"
    scales = load_yaml(file)
    check_known(scale, scales, f"{file}: has no scale")
    where = f"{file}: {scale}"
    check(scales[scale], keys_of(TableScale), where)
    require(scales[scale], ["sets"], where)
    has = typed(TableScale, scales[scale])
    for name in has.seeds:
        check_known(name, table_names(conf), f"{where}.seeds: unknown table")
    for name, entry in has.encoders.items():
        if not reason_of(entry):
            check(entry, keys_of(Encoder), f"{where}.encoders.{name}")
            require(entry, ("family", "path"), f"{where}.encoders.{name}")
    return has


def check_options(options: Iterable[str], where: str) -> None:
    """The recipe passes them on as words of a text, which it splits at white space."""
    for option in options:
        if not OPTION.fullmatch(option):
            raise PamError(f"{where}: option {option!r}: expected KEY=VALUE without white space")


def check_parts_of_name(parts: Iterable[str], where: str) -> None:
    """Encoders, the LLM and the variant are in the name of the experiment, which is a folder's."""
    for part in parts:
        if not PART_OF_A_NAME.fullmatch(part) or part in (".", ".."):
            raise PamError(
                f"{where}: {part!r}: it would be in the name of a folder: use letters, digits and "
                "._+- alone"
            )
