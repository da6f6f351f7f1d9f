"""The prompts of the tasks, for training and for decoding alone."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pam.config import check_keys, load_yaml
from pam.data.tasks import plain_files, prompt_files
from pam.errors import PamError
from pam.registry import nearest

MERGED_TASKS = ("asr_clean", "asr_noisy")
PROMPT_SPLITS = ("unseen", "plain", "seen", "train")  # "seen" and "train" are the same prompts
PLAIN = "plain"  # name of the file with plain requests, and of their test split
PLAIN_PARTS = ("train", "test")


@dataclass(frozen=True)
class Prompts:
    """The prompts of one task. No prompt is in two splits, case and punctuation ignored.

    Attributes:
        train: long prompts for training, as written in the file; drawn in all their `forms`.
        unseen: long prompts for decoding alone.
        plain_train: short requests for training, as written; drawn in all their `forms`.
        plain: short requests for decoding alone, in all their forms.
        shared: for each form of a short request with several right experts, their tasks.
        as_written: whether training draws no other forms.
    """

    train: tuple[str, ...]
    unseen: tuple[str, ...]
    plain_train: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    shared: Mapping[str, frozenset[str]] = field(default_factory=dict)
    as_written: bool = False

    def split(self, name: str) -> tuple[str, ...]:
        """The split `name`, one of `PROMPT_SPLITS`. `PamError` if the task does not have it."""
        if name not in PROMPT_SPLITS:
            raise PamError(f"prompts {name!r}: {nearest(name, PROMPT_SPLITS)}")
        if name == PLAIN and not self.plain:
            raise PamError(
                "prompts 'plain': a task of these sets has no plain requests: "
                f"add some to conf/prompts/{PLAIN}.yaml or choose another split"
            )
        return {"unseen": self.unseen, PLAIN: self.plain}.get(name, self.train)

    def is_seen(self, prompt: str) -> bool:
        """Whether training may draw this prompt."""
        return prompt in self._drawn

    @cached_property
    def _drawn(self) -> frozenset[str]:
        """All prompts that training may draw."""
        texts = self.train + self.plain_train
        return frozenset(form for text in texts for form in self._spelt(text))

    def _spelt(self, text: str) -> tuple[str, ...]:
        return (text,) if self.as_written else forms(text)

    @cached_property
    def _groups(self) -> list[tuple[str, ...]]:
        """The groups that training draws from equally often: long prompts, requests of this task
        alone, requests that it shares with other tasks."""
        own = tuple(text for text in self.plain_train if text not in self.shared)
        shared = tuple(text for text in self.plain_train if text in self.shared)
        return [group for group in (self.train, own, shared) if group]

    def draw_train(self, number: int) -> str:
        """The training prompt for a random `number`.

        Long prompts, short requests of this task alone, and requests that it shares with another
        task are equally probable. So are the forms of each prompt.
        """
        number, chosen = divmod(number, len(self._groups))
        number, index = divmod(number, len(self._groups[chosen]))
        spelt = self._spelt(self._groups[chosen][index])
        return spelt[number % len(spelt)]

    def bank(self, count: int, seed: int) -> tuple[str, ...]:
        """`count` draws of training prompts, the same for each `seed`; a prompt may occur twice."""
        keys = (f"bank {seed} {number}".encode() for number in range(count))
        digests = (hashlib.sha256(key).digest() for key in keys)
        return tuple(self.draw_train(int.from_bytes(digest[:8], "big")) for digest in digests)


def load_prompts(
    task: str, folder: str | Path | None = None, merge_asr_prompts: bool = False
) -> Prompts:
    """The prompts of `task` from `folder`/TASK.yaml.

    By default the file is in conf/prompts, or in a recipe's conf/prompts.

    Args:
        merge_asr_prompts: give asr_clean and asr_noisy the prompts of both. A router cannot
            distinguish the two tasks then.

    Raises:
        PamError: the file is missing, or an entry is empty, has several lines, is not a text, or
            is a duplicate.
    """
    return _prompts_of(task, _files(folder), _read_plain(folder), merge_asr_prompts)


def _prompts_of(
    task: str, files: Mapping[str, Path], requests: Sequence["_Request"], merge_asr_prompts: bool
) -> Prompts:
    names = MERGED_TASKS if merge_asr_prompts and task in MERGED_TASKS else (task,)
    parts = [_read(files, name) for name in names]
    _check_unique([*(part for _, part in parts), [(r.where, r.text) for r in requests]])
    train, unseen = (
        [text for splits, _ in parts for text in splits[p]] for p in ("train", "unseen")
    )
    own = [request for request in requests if not request.tasks.isdisjoint(names)]
    plain_train = [r.text for r in own if r.part == "train"]
    plain = [form for r in own if r.part == "test" for form in forms(r.text)]
    shared = {form: r.tasks for r in own if len(r.tasks) > 1 for form in forms(r.text)}
    return Prompts(*map(tuple, (train, unseen, plain_train, plain)), shared)


def load_all_prompts(
    tasks: Sequence[str] | None = None,
    folder: str | Path | None = None,
    merge_asr_prompts: bool = False,
) -> dict[str, Prompts]:
    """{task: prompts} for `tasks`, by default for all tasks.

    Raises:
        PamError: as `load_prompts`; also if two tasks share a prompt.
    """
    files = _files(folder)
    names = list(tasks) if tasks is not None else list(files)
    if not names:
        raise PamError(f"{folder}: no prompts: expected one file TASK.yaml for each task")
    requests = _read_plain(folder)
    for request in requests:
        for task in request.tasks - files.keys():
            raise PamError(f"{request.where}: no task {task!r}: {nearest(task, files)}")
    _check_unique(
        [*(_read(files, name)[1] for name in names), [(r.where, r.text) for r in requests]]
    )
    return {name: _prompts_of(name, files, requests, merge_asr_prompts) for name in names}


def prompts_of(config: Mapping[str, Any], tasks: Sequence[str] | None = None) -> dict[str, Prompts]:
    """{task: prompts} for an experiment's tasks, or for `tasks`."""
    tasks = config["tasks"] if tasks is None else tasks
    found = load_all_prompts(tasks, merge_asr_prompts=config.get("merge_asr_prompts", False))
    if config.get("plain_prompts", True):
        return found
    return {t: replace(own, plain_train=(), as_written=True) for t, own in found.items()}


def banks_of(config: Mapping[str, Any], seed: int) -> dict[str, tuple[str, ...]]:
    """{task: its bank} for an experiment's tasks; {} where the configuration has no bank."""
    if not (count := config.get("prompt_bank", 0)):
        return {}
    return {task: own.bank(count, seed) for task, own in prompts_of(config).items()}


def draw(prompts: Prompts, utt_id: str, seed: int = 0, split: str = "unseen") -> str:
    """Draw the prompt of an utterance. It depends only on the utterance's id and the seed."""
    choices = prompts.split(split)
    digest = hashlib.sha256(f"{seed} {utt_id}".encode()).digest()
    return choices[int.from_bytes(digest[:8], "big") % len(choices)]


def forms(request: str) -> tuple[str, ...]:
    """A plain request as written, in lower case without punctuation, and in upper case.

    >>> forms("Transcribe, please.")
    ('Transcribe, please.', 'transcribe please', 'TRANSCRIBE, PLEASE.')
    """
    bare = " ".join(re.sub(r"[.,:;!?…]", " ", request).split()).lower()
    return tuple(dict.fromkeys((request, bare, request.upper())))


def normalise(text: str) -> str:
    """The form in which prompts are compared: lower case, without punctuation."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold().replace("'", "").replace("’", "")))


Entry = tuple[str, str]  # an entry's place, for messages, and its text


@dataclass(frozen=True)
class _Request:
    """A plain request: its place in the file, the tasks whose experts are right, and its split."""

    where: str
    text: str
    tasks: frozenset[str]
    part: str


def _files(folder: str | Path | None) -> Mapping[str, Path]:
    """{task: file} of a folder, or of the whole project."""
    if folder is None:
        return prompt_files()
    paths = sorted(Path(folder).glob("*.yaml"))
    return {path.stem: path for path in paths if path.stem != PLAIN}


def _read_plain(folder: str | Path | None) -> list[_Request]:
    """The plain requests of a folder, or of the whole project."""
    files = plain_files() if folder is None else [Path(folder) / f"{PLAIN}.yaml"]
    requests = []
    for path in files:
        if not path.is_file():
            continue
        conf = load_yaml(path)
        check_keys(conf, PLAIN_PARTS, str(path))
        for part, sections in conf.items():
            if not isinstance(sections, Mapping):
                raise PamError(f"{path}: {part}: expected sections like 'ac:' with requests")
            for names, texts in sections.items():
                if not isinstance(texts, list):
                    raise PamError(f"{path}: {part}, {names}: expected a list of requests")
                for number, text in enumerate(texts, 1):
                    where = f"{path}: {part}, {names}, {number}"
                    _check_text(text, where)
                    requests.append(_Request(where, text, frozenset(names.split()), part))
    return requests


def _read(files: Mapping[str, Path], task: str) -> tuple[dict[str, list[str]], list[Entry]]:
    """The splits of one file, and all its entries with their places."""
    if task not in files:
        raise PamError(f"no prompts for task {task!r}: {nearest(task, files)}; or add {task}.yaml")
    path = files[task]
    conf = load_yaml(path)
    check_keys(conf, ("task", "metric", "description", "train", "unseen"), str(path))
    if conf.get("task") != task:
        raise PamError(f"{path}: its task is {conf.get('task')!r}: write 'task: {task}'")
    entries = []
    for split in ("train", "unseen"):
        if not isinstance(conf.get(split), list) or not conf[split]:
            raise PamError(f"{path}: {split!r} is not a list of prompts: give at least one")
        for number, text in enumerate(conf[split], 1):
            where = f"{path}: {split} prompt {number}"
            _check_text(text, where)
            entries.append((where, text))
    return {split: conf[split] for split in ("train", "unseen")}, entries


def _check_text(text: Any, where: str) -> None:
    if not isinstance(text, str):
        raise PamError(f"{where} {text!r}: not a text: put it in quotes")
    if text != " ".join(text.split()):
        raise PamError(f"{where} {text!r}: write it in one line, with single spaces")
    if not normalise(text):
        raise PamError(f"{where} {text!r}: has no words: write or remove it")


def _check_unique(parts: Iterable[Sequence[Entry]]) -> None:
    """`PamError` if a prompt occurs twice, in one split, two splits or two tasks."""
    places: dict[str, str] = {}
    for where, text in (entry for part in parts for entry in part):
        first = places.setdefault(normalise(text), where)
        if first != where:
            raise PamError(f"{where} {text!r}: the same as {first}: rewrite or remove one")
