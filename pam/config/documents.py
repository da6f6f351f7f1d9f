"""Every key of conf/prompts and conf/tables. (`pam.config.schema` has those of experiments.)"""

from dataclasses import dataclass
from typing import Any

from pam.config.keys import ANY, ANYTHING, FLAG, LIST, NAMES, TEXT, TEXTS, Key, Keys, option
from pam.config.source import registered

METRICS = "pam.score.METRICS"


def metric_names() -> list[str]:
    return list(registered(METRICS))


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
    encoders: list[str] | None = option("Encoders of the scale or of scales.yaml.", LIST)
    llm: str | None = option("An LLM of scales.yaml.", TEXT, without="the scale's")
    set: list[str] | None = option("Further options in the syntax of --set.", NAMES)
    variant: str | None = option("The suffix of the experiment's name for `set`.", TEXT)
    mean: list[str] | None = option("The rows whose mean this row is.", NAMES)
    best: list[str] | None = option("The rows whose best this row is.", NAMES)


@dataclass(frozen=True)
class TableDelta:
    """A second table with gains over other rows."""

    title: str | None = option("Its title.", TEXT)
    paper: str | None = option("Its name in paper.yaml.", TEXT)
    over: list[str] | None = option("Rows are compared with the best of these.", NAMES)
    rows: list[str] | None = option("The rows that are compared.", NAMES)


def claim_keys() -> Keys:
    return {
        "says": Key("The paper's claim and its section.", TEXT),
        "better": Key("The row or rows that are better.", TEXTS),
        "than": Key("The row or rows that they are better than.", TEXTS),
        "in": Key("The columns that the claim is about.", NAMES, default="all"),
    }


@dataclass(frozen=True)
class PaperTable:
    """conf/tables/NAME.yaml: the systems and sets of a table of the paper, or beyond it."""

    title: str | None = option("Its title.", TEXT)
    kind: str | None = option("The kind of table (pam.bin.table).", TEXT, without="systems")
    paper: str | None = option("Its name in paper.yaml.", TEXT)
    reference: str | None = option("The row that the others are compared with.", TEXT)
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
    rows_of: str | None = option("Another table whose rows this table uses.", TEXT)
    delta: TableDelta | None = option("A second table: gains over other rows.")
    claims: list[Any] | None = option("A list of the paper's claims.", LIST, keys=claim_keys)
    tasks: dict[str, str] | None = option(
        "Its rows: tasks.", keys=lambda: {ANY: Key("The paper's row of the task.", TEXT)}
    )
    prompts: list[str] | None = option("The prompts that are routed.", NAMES)
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
        "The scale's set for each of the paper's.", keys=lambda: {ANY: Key("A set, or missing.")}
    )
    encoders: dict[str, Any] | None = option(
        "Encoders in addition to those of conf/scale.",
        keys=lambda: {ANY: Key("As in `encoders` of a scale, or missing.")},
    )
    llms: dict[str, Any] | None = option(
        "The LLMs of the tables.",
        keys=lambda: {ANY: Key("As `llm_conf.path`, or missing.")},
    )
