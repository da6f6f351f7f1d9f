"""Every key of conf/prompts and conf/tables. (`pam.config.schema` has those of experiments.)"""

from dataclasses import dataclass
from typing import Any

from pam.config.keys import (
    ANY,
    ANYTHING,
    FLAG,
    LIST,
    NAMES,
    SOME_NAMES,
    SOME_TEXTS,
    TEXT,
    Key,
    Keys,
    Rule,
    option,
    whole,
)
from pam.config.source import attribute_of, registered

METRICS = "pam.score.METRICS"
CAPTION_METRICS = "pam.score.CAPTION_METRICS"
KINDS = "pam.paper.kinds.KINDS"


def metric_names() -> list[str]:
    return list(registered(METRICS))


def scored_names() -> list[str]:
    """The names of metrics in results, which are those of columns: `meteor`, not `caption`."""
    parts = [*registered(METRICS).values(), *registered(CAPTION_METRICS).values()]
    return list(dict.fromkeys(attribute_of(part, "name") for part in parts))


def kind_names() -> list[str]:
    return list(registered(KINDS))


def reason_of(entry: Any) -> str | None:
    """Why a scale lacks something, of {missing: REASON}; None for everything else."""
    if not isinstance(entry, dict) or entry.keys() != {"missing"}:
        return None
    reason = entry["missing"]
    return reason if isinstance(reason, str) and reason.strip() else None


def or_missing(what: str, type: type) -> Rule:
    """`type`: that of an entry which the scale has."""

    def holds(value: Any) -> bool:
        there = isinstance(value, type) and value and not _says_missing(value)
        return bool(there or reason_of(value))

    return Rule(f"{what}, or {{missing: REASON}}", holds)


def _says_missing(entry: Any) -> bool:
    return isinstance(entry, dict) and "missing" in entry


@dataclass(frozen=True)
class Prompts:
    """conf/prompts/TASK.yaml: the prompts of training, and those of decoding alone."""

    task: str | None = option("The task, which is the name of the file.", TEXT)
    metric: str | None = option(
        "The metric of a new task (pam/score).",
        TEXT,
        kind="metric",
        choices=metric_names,
    )
    description: str | None = option("A description of a new task.", TEXT, without="its name")
    train: list[str] | None = option(
        "Prompts that training draws from. In plain.yaml: sections of tasks.", ANYTHING
    )
    unseen: list[str] | None = option("Prompts that only decoding draws from.", ANYTHING)
    test: dict[str, Any] | None = option(
        "In plain.yaml: short requests that only decoding draws from, by task.", ANYTHING
    )


@dataclass(frozen=True)
class TableRow:
    """A row of a paper table: a system, or a value computed from other rows."""

    system: str | None = option("A file of conf/systems.", TEXT)
    encoders: list[str] | None = option(
        "Encoders of the scale or of scales.yaml.", SOME_NAMES, without="all of the scale"
    )
    llm: str | None = option("An LLM of scales.yaml.", TEXT, without="the scale's")
    set: list[str] | None = option(
        "Further options in the syntax of --set, without white space; `variant` names them.",
        SOME_NAMES,
    )
    variant: str | None = option("The suffix of the experiment's name for `set`.", TEXT)
    mean: list[str] | None = option("The earlier rows whose mean this row is.", SOME_NAMES)
    best: list[str] | None = option("The earlier rows whose best this row is.", SOME_NAMES)


@dataclass(frozen=True)
class TableDelta:
    """A second table with gains over other rows."""

    title: str | None = option("Its title.", TEXT)
    paper: str | None = option("Its name in paper.yaml.", TEXT)
    over: list[str] | None = option("Rows are compared with the best of these.", SOME_NAMES)
    rows: list[str] | None = option("The rows that are compared.", SOME_NAMES)


def claim_keys() -> Keys:
    return {
        "says": Key("The paper's claim and its section.", TEXT),
        "better": Key("The row or rows that are better.", SOME_TEXTS),
        "than": Key("The row or rows that they are better than.", SOME_TEXTS),
        "in": Key("The columns that the claim is about.", SOME_NAMES, default="all"),
    }


SIX = "six"  # stands for the paper's six columns
RANKED = Rule(
    f"{SIX} or a list of one or more columns",
    lambda value: value == SIX or SOME_NAMES.holds(value),
)


@dataclass(frozen=True)
class PaperTable:
    """conf/tables/NAME.yaml: the systems and sets of a table of the paper, or beyond it."""

    title: str | None = option("Its title.", TEXT)
    kind: str | None = option(
        "The kind of table (pam.bin.table).",
        TEXT,
        kind="kind of table",
        choices=kind_names,
        without="systems",
    )
    paper: str | None = option("Its name in paper.yaml.", TEXT)
    reference: str | None = option("The row that the others are compared with.", TEXT)
    columns: list[str] | None = option("SET_METRIC of each column.", NAMES, without="the six sets")
    rank: dict[str, Any] | None = option(
        "Columns that are mean ranks: {NAME: six, or columns}.",
        keys=lambda: {ANY: Key("six, or a list of columns.", RANKED)},
    )
    averages: dict[str, Any] | None = option(
        "Columns that are means: {NAME: columns}.",
        keys=lambda: {ANY: Key("A list of columns.", SOME_NAMES)},
    )
    rows: dict[str, TableRow] | None = option("The rows, by name.")
    rows_of: str | None = option("Another table whose rows this table uses.", TEXT)
    delta: TableDelta | None = option("A second table: gains over other rows.")
    claims: list[Any] | None = option("A list of the paper's claims.", LIST, keys=claim_keys)
    tasks: dict[str, str] | None = option(
        "Its rows: tasks.", keys=lambda: {ANY: Key("The paper's row of the task.", TEXT)}
    )
    prompts: list[str] | None = option("The prompts that are routed.", SOME_NAMES)
    parameters: bool | None = option("Show the number of trained parameters.", FLAG)
    beyond: bool | None = option(
        "Whether the paper has no such table; `--table all` leaves it out.", FLAG, without="false"
    )


@dataclass(frozen=True)
class TableScale:
    """A section of conf/tables/scales.yaml: a scale's sets, encoders and LLMs for the tables.

    {missing: REASON} instead of a set, an encoder or an LLM means that the scale has none.
    """

    paper_sets: bool | None = option("Whether the sets are the paper's.", FLAG)
    sets: dict[str, Any] | None = option(
        "The scale's set for each of the paper's.",
        keys=lambda: {ANY: Key("A set, or missing.", or_missing("a set", str))},
    )
    encoders: dict[str, Any] = option(
        "Encoders in addition to those of conf/scale.",
        default={},
        keys=lambda: {
            ANY: Key("As in `encoders` of a scale, or missing.", or_missing("an encoder", dict))
        },
    )
    llms: dict[str, Any] = option(
        "The LLMs of the tables.",
        default={},
        keys=lambda: {ANY: Key("As `llm_conf.path`, or missing.", or_missing("a model", str))},
    )
    seeds: dict[str, int] = option(
        "Seeds of each system that a table's claims are decided with; with fewer they are not.",
        default={},
        keys=lambda: {ANY: Key("A number of seeds.", whole(1))},
    )
