"""The tasks of the multitask model: each has one expert and one metric.

`TASKS` are the paper's four. A recipe adds a task with a file egs/NAME/conf/prompts/TASK.yaml. That
file starts with `metric:` and `description:` and holds the prompts; the code does not name such
tasks. A task's index among all tasks is the index of its expert.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from pam.config import load_yaml
from pam.config.documents import metric_names
from pam.errors import PamError
from pam.paths import ROOT
from pam.registry import nearest


@dataclass(frozen=True)
class Task:
    """A task: `expert` is its label for the router, `metric` one of `pam.score.METRICS`."""

    name: str
    expert: int
    metric: str
    description: str


def _by_name(*rows: tuple[str, str, str]) -> dict[str, Task]:
    return {name: Task(name, i, metric, text) for i, (name, metric, text) in enumerate(rows)}


TASKS = _by_name(
    ("asr_clean", "wer", "recognition of clean speech"),
    ("asr_noisy", "wer", "recognition of noisy speech"),
    ("snv", "accuracy", "speaker number verification: how many people speak"),
    ("ac", "caption", "audio captioning: what can be heard"),
)


@functools.cache
def prompt_files(root: Path = ROOT) -> dict[str, Path]:
    """{task: prompt file}: first the files of conf/prompts, then those of the recipes."""
    own = sorted(root.glob("egs/*/conf/prompts/*.yaml"), key=lambda f: (f.stem, f))
    found: dict[str, Path] = {}
    for file in [*sorted((root / "conf/prompts").glob("*.yaml")), *own]:
        if file.stem == "plain":
            continue
        first = found.setdefault(file.stem, file)
        if first != file:
            raise PamError(f"{file}: task {file.stem!r} is in {first} too: give it another name")
    return found


def plain_files(root: Path = ROOT) -> list[Path]:
    """The files of plain requests: first that of conf/prompts, then those of the recipes."""
    return [root / "conf/prompts/plain.yaml", *sorted(root.glob("egs/*/conf/prompts/plain.yaml"))]


@functools.cache
def all_tasks(root: Path = ROOT) -> dict[str, Task]:
    """`TASKS`, then the tasks of the recipes in the order of their names."""
    others = {name: path for name, path in prompt_files(root).items() if name not in TASKS}
    rows = [(task.name, task.metric, task.description) for task in TASKS.values()]
    return _by_name(*rows, *(_read_head(name, path) for name, path in others.items()))


def forget_tasks() -> None:
    """Clear the cache, so that added task files are found."""
    prompt_files.cache_clear()
    all_tasks.cache_clear()


def task_names() -> list[str]:
    """All task names in the order of their experts."""
    return list(all_tasks())


def get_task(name: str) -> Task:
    """The task called `name`. `PamError` with the nearest name if there is none."""
    tasks = all_tasks()
    if name not in tasks:
        raise PamError(f"unknown task {name!r}: {unknown_task(name)}")
    return tasks[name]


def unknown_task(name: str) -> str:
    """The remedy for an unknown task: the nearest name, and the file that would define it."""
    return f"{nearest(name, all_tasks())}; a new task is a file egs/RECIPE/conf/prompts/{name}.yaml"


def _read_head(name: str, path: Path) -> tuple[str, str, str]:
    head = load_yaml(path)
    if head.get("metric") not in metric_names():
        remedy = f"write one of {', '.join(metric_names())}"
        raise PamError(f"{path}: metric {head.get('metric')!r} of a new task: {remedy}")
    return name, head["metric"], str(head.get("description", name))
