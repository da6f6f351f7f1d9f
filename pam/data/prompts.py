"""The prompts of the tasks: what training draws from, and what only decoding ever shows."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pam.config import check_keys, load_yaml
from pam.data.tasks import prompt_files
from pam.errors import UserError
from pam.table import nearest

MERGED_TASKS = ("asr_clean", "asr_noisy")
POOLS = ("unseen", "seen", "train")  # "seen" and "train" are the same prompts


@dataclass(frozen=True)
class Prompts:
    """The prompts of one task; no prompt is in both pools, whatever its case or punctuation."""

    train: tuple[str, ...]
    unseen: tuple[str, ...]

    def pool(self, name: str) -> tuple[str, ...]:
        """The pool called `name`, one of `POOLS`."""
        if name not in POOLS:
            raise UserError(f"prompts {name!r}: {nearest(name, POOLS)}")
        return self.unseen if name == "unseen" else self.train


def load_prompts(
    task: str, folder: str | Path | None = None, merge_asr_prompts: bool = False
) -> Prompts:
    """The prompts of `task` from `folder`/TASK.yaml.

    By default they are where all tasks have theirs: conf/prompts, or a recipe's conf/prompts.

    Args:
        merge_asr_prompts: give asr_clean and asr_noisy one pool, the prompts of both. A router
            cannot tell the two tasks apart then.

    Raises:
        UserError: no such file, or an entry is empty, longer than a line, no text or a duplicate.
    """
    files = _files(folder)
    names = MERGED_TASKS if merge_asr_prompts and task in MERGED_TASKS else (task,)
    parts = [_read(files, name) for name in names]
    _check_unique(part for _, part in parts)
    train, unseen = ([text for pools, _ in parts for text in pools[p]] for p in ("train", "unseen"))
    return Prompts(tuple(train), tuple(unseen))


def load_all_prompts(
    tasks: Sequence[str] | None = None,
    folder: str | Path | None = None,
    merge_asr_prompts: bool = False,
) -> dict[str, Prompts]:
    """The prompts of `tasks`, by default of all that there are, by task.

    Raises:
        UserError: as `load_prompts`; also where two tasks share a prompt.
    """
    files = _files(folder)
    names = list(tasks) if tasks is not None else list(files)
    if not names:
        raise UserError(f"{folder}: no prompts: expected one file TASK.yaml for each task")
    _check_unique(_read(files, name)[1] for name in names)
    return {name: load_prompts(name, folder, merge_asr_prompts) for name in names}


def prompts_of(config: Mapping[str, Any], tasks: Sequence[str] | None = None) -> dict[str, Prompts]:
    """What an experiment's model is asked: prompts of its tasks, or of `tasks`, by task."""
    tasks = config["tasks"] if tasks is None else tasks
    return load_all_prompts(tasks, merge_asr_prompts=config.get("merge_asr_prompts", False))


def draw(prompts: Prompts, utt_id: str, seed: int = 0, pool: str = "unseen") -> str:
    """The prompt of an utterance: it depends on its id and the seed, not on order or machine."""
    choices = prompts.pool(pool)
    digest = hashlib.sha256(f"{seed} {utt_id}".encode()).digest()
    return choices[int.from_bytes(digest[:8], "big") % len(choices)]


def draw_train(prompts: Prompts, rng: np.random.Generator) -> str:
    """A training prompt, each with the same probability."""
    return prompts.train[rng.integers(len(prompts.train))]


def normalise(text: str) -> str:
    """What two prompts are compared by: their words in lower case, without punctuation."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold().replace("'", "").replace("’", "")))


Entry = tuple[str, str]  # where an entry stands, for messages; its text


def _files(folder: str | Path | None) -> Mapping[str, Path]:
    """{task: file} of a folder, or of the whole project."""
    if folder is None:
        return prompt_files()
    return {path.stem: path for path in sorted(Path(folder).glob("*.yaml"))}


def _read(files: Mapping[str, Path], task: str) -> tuple[dict[str, list[str]], list[Entry]]:
    """The pools of one file, and its entries with their places."""
    if task not in files:
        raise UserError(f"no prompts for task {task!r}: {nearest(task, files)}; or add {task}.yaml")
    path = files[task]
    conf = load_yaml(path)
    check_keys(conf, ("task", "metric", "description", "train", "unseen"), str(path))
    if conf.get("task") != task:
        raise UserError(f"{path}: its task is {conf.get('task')!r}: write 'task: {task}'")
    entries = []
    for pool in ("train", "unseen"):
        if not isinstance(conf.get(pool), list) or not conf[pool]:
            raise UserError(f"{path}: {pool!r} is not a list of prompts: give at least one")
        for number, text in enumerate(conf[pool], 1):
            where = f"{path}: {pool} prompt {number}"
            _check_text(text, where)
            entries.append((where, text))
    return {pool: conf[pool] for pool in ("train", "unseen")}, entries


def _check_text(text: Any, where: str) -> None:
    if not isinstance(text, str):
        raise UserError(f"{where} {text!r}: not a text: put it in quotes")
    if text != " ".join(text.split()):
        raise UserError(f"{where} {text!r}: write it in one line, with single spaces")
    if not normalise(text):
        raise UserError(f"{where} {text!r}: has no words: write or remove it")


def _check_unique(parts: Iterable[Sequence[Entry]]) -> None:
    """No prompt twice, be it in a pool, in both pools or in the pools of several tasks."""
    places: dict[str, str] = {}
    for where, text in (entry for part in parts for entry in part):
        first = places.setdefault(normalise(text), where)
        if first != where:
            raise UserError(f"{where} {text!r}: the same as {first}: rewrite or remove one")
