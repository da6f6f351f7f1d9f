"""The tasks of the multitask model: which expert serves them and how their answers are scored.

A further task is one more line in `TASKS`; its place in the table is the index of its expert.
"""

from dataclasses import dataclass

from pam.errors import UserError
from pam.table import nearest

METRICS = ("wer", "accuracy", "caption")


@dataclass(frozen=True)
class Task:
    """A task: `expert` is its label for the router, `metric` one of `METRICS`."""

    name: str
    expert: int
    metric: str
    description: str


def _table(*rows: tuple[str, str, str]) -> dict[str, Task]:
    return {name: Task(name, i, metric, text) for i, (name, metric, text) in enumerate(rows)}


TASKS = _table(
    ("asr_clean", "wer", "recognition of clean speech"),
    ("asr_noisy", "wer", "recognition of noisy speech"),
    ("snv", "accuracy", "speaker number verification: how many people speak"),
    ("ac", "caption", "audio captioning: what can be heard"),
)


def task_names() -> list[str]:
    """All task names in the order of their experts."""
    return list(TASKS)


def get_task(name: str) -> Task:
    """The task called `name`; `UserError` with the nearest name where there is none."""
    if name not in TASKS:
        raise UserError(f"unknown task {name!r}: {nearest(name, TASKS)}")
    return TASKS[name]
