"""Every key of conf/prompts and conf/tables, as `pam.config.schema` has those of an experiment."""

from dataclasses import dataclass
from typing import Any

from pam.config.keys import ANY, ANYTHING, FLAG, LIST, NAMES, TEXT, TEXTS, Key, Keys, option
from pam.config.source import registered

METRICS = "pam.score.METRICS"


def metric_names() -> list[str]:
    return list(registered(METRICS))


@dataclass(frozen=True)
class Prompts:
    """conf/prompts/TASK.yaml: what training asks, and what only decoding asks."""

    task: str | None = option("The task, which is the name of the file.", TEXT)
    metric: str | None = option(
        "How answers of a new task are scored (pam/score).",
        TEXT,
        kind="metric",
        choices=metric_names,
    )
    description: str | None = option("What a new task asks for.", TEXT, without="its name")
    train: list[str] | None = option(
        "Prompts that training draws from. In plain.yaml: sections of tasks.", ANYTHING
    )
    unseen: list[str] | None = option("Prompts that only decoding draws from.", ANYTHING)
    test: dict[str, Any] | None = option(
        "In plain.yaml: short requests that only decoding draws from, by task.", ANYTHING
    )


@dataclass(frozen=True)
class TableRow:
    """A row of a paper table: a system, or what is computed from other rows."""

    system: str | None = option("A file of conf/systems.", TEXT)
    encoders: list[str] | None = option("Encoders of the scale or of scales.yaml.", LIST)
    llm: str | None = option("An LLM of scales.yaml.", TEXT, without="the scale's")
    set: list[str] | None = option("Further options, as --set takes them.", NAMES)
    variant: str | None = option("What `set` adds to the experiment's name.", TEXT)
    mean: list[str] | None = option("The rows whose mean this row is.", NAMES)
    best: list[str] | None = option("The rows whose best this row is.", NAMES)


@dataclass(frozen=True)
class TableDelta:
    """Gains over other rows."""

    title: str | None = option("Its title.", TEXT)
    paper: str | None = option("Its name in paper.yaml.", TEXT)
    over: list[str] | None = option("The best of these rows is compared with.", NAMES)
    rows: list[str] | None = option("The rows that are compared.", NAMES)


def claim_keys() -> Keys:
    return {
        "says": Key("What the paper claims, and in which section.", TEXT),
        "better": Key("The row or rows that are better.", TEXTS),
        "than": Key("The row or rows that they are better than.", TEXTS),
        "in": Key("The columns that the claim is about.", NAMES, default="all"),
    }


@dataclass(frozen=True)
class PaperTable:
    """conf/tables/NAME.yaml: which systems on which sets make a table of the paper."""

    title: str | None = option("Its title.", TEXT)
    kind: str | None = option("What it shows (pam.bin.table).", TEXT, without="systems")
    paper: str | None = option("Its name in paper.yaml.", TEXT)
    reference: str | None = option("The row that others are compared with.", TEXT)
    columns: list[str] | None = option("SET_METRIC of each column.", NAMES, without="the six sets")
    rank: dict[str, Any] | None = option(
        "Columns that are mean ranks: {NAME: six, or columns}.",
        keys=lambda: {ANY: Key("six, or a list of columns.", TEXTS)},
    )
    averages: dict[str, Any] | None = option(
        "Columns that are means: {NAME: columns}.",
        keys=lambda: {ANY: Key("A list of columns.", NAMES)},
    )
    rows: dict[str, TableRow] | None = option("The rows, by name.")
    rows_of: str | None = option("Another table whose rows are computed with.", TEXT)
    delta: TableDelta | None = option("A second table: gains over other rows.")
    claims: list[Any] | None = option("A list of what the paper claims.", LIST, keys=claim_keys)
    tasks: dict[str, str] | None = option(
        "Its rows: tasks.", keys=lambda: {ANY: Key("The paper's row of the task.", TEXT)}
    )
    prompts: list[str] | None = option("The prompts that are routed.", NAMES)
    parameters: bool | None = option("Show the number of trained parameters.", FLAG)


@dataclass(frozen=True)
class TableScale:
    """A section of conf/tables/scales.yaml: what a scale has for the paper's tables.

    In the place of a set, an encoder or an LLM, {missing: why} says that the scale has none.
    """

    paper_sets: bool | None = option("Whether the sets are the paper's.", FLAG)
    sets: dict[str, Any] | None = option(
        "The scale's set for each of the paper's.", keys=lambda: {ANY: Key("A set, or missing.")}
    )
    encoders: dict[str, Any] | None = option(
        "Encoders beside those of conf/scale.",
        keys=lambda: {ANY: Key("As in `encoders` of a scale, or missing.")},
    )
    llms: dict[str, Any] | None = option(
        "The LLMs of the tables.",
        keys=lambda: {ANY: Key("As `llm_conf.path`, or missing.")},
    )
