"""The configuration that is trained: a system at a scale, for the tasks of its data."""

from collections.abc import Iterable, Mapping
from typing import Any

from pam.config import Experiment, compose, plain
from pam.data.tasks import TASKS, get_task


def combine(
    scale: Mapping[str, Any],
    system: Mapping[str, Any],
    assignments: Iterable[str] = (),
    tasks: Iterable[str] = TASKS,
) -> dict[str, Any]:
    """The configuration of the system at the scale.

    `assignments` are those of --set. `tasks` are those of the data; the default is the paper's.
    """
    return effective(compose(scale, system, assignments), tasks)


def effective(experiment: Experiment, tasks: Iterable[str] = TASKS) -> dict[str, Any]:
    """The effective configuration, as in exp/NAME/config.yaml. PamError for an unknown task."""
    for task in experiment.warmup_tasks:
        get_task(task)
    return plain(experiment) | {"tasks": experiment.tasks or list(tasks)}
