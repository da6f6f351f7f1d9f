"""What an experiment's folder holds, read once; what is missing is None or empty."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pam.config import load_yaml
from pam.config.made import Record, read_record, stage_seconds
from pam.data.sample import evenly
from pam.environment import environment
from pam.errors import UserError
from pam.score.items import Item, read_items

MAIN_TAG = "greedy_unseen"


@dataclass
class SetResult:
    """One decoded set: its score.json, some of its answers, and what it was decoded with."""

    score: dict[str, Any]
    samples: list[Item] = field(default_factory=list)
    decoding: dict[str, Any] = field(default_factory=dict)


@dataclass
class Experiment:
    """exp/NAME. `tags` maps a decoding to its sets; the first of them is the main one.

    `made` is what it was trained with, None where it did not record that. `environment` is where it
    was trained, or, of one that did not record it, where this runs.
    """

    name: str
    config: dict[str, Any]
    tags: dict[str, dict[str, SetResult]] = field(default_factory=dict)
    router: dict[str, Any] | None = None
    hearing: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    made: Record | None = None
    curves: list[dict[str, Any]] = field(default_factory=list)
    analysis: dict[str, Any] | None = None
    environment: Mapping[str, str | None] = field(default_factory=environment)

    @property
    def sets(self) -> Mapping[str, SetResult]:
        """The sets of the main decoding."""
        return next(iter(self.tags.values()), {})


def read_experiment(exp: str | Path, samples: int = 3) -> Experiment:
    """Read exp/NAME; `UserError` where it is no experiment or one of its files is damaged."""
    exp = Path(exp)
    if not (exp / "config.yaml").is_file():
        raise UserError(f"{exp}: no experiment: it has no config.yaml (train writes it)")
    return Experiment(
        name=exp.resolve().name,
        config=load_yaml(exp / "config.yaml"),
        tags=read_tags(exp, samples),
        router=read_json(exp / "router.json", dict),
        hearing=read_json(exp / "hearing.json", dict),
        seconds=stage_seconds(exp),
        made=read_record(exp, "train"),
        curves=read_json(exp / "curves.json", list) or [],
        analysis=read_json(exp / "analysis.json", dict),
        environment=read_json(exp / "environment.json", dict) or environment(),
    )


def read_tags(exp: Path, samples: int) -> dict[str, dict[str, SetResult]]:
    """{tag: {set: result}}, the decoding with unseen prompts first, then in C order."""
    tags: dict[str, dict[str, SetResult]] = {}
    for path in sorted(exp.glob("*/*/score*.json")):
        score = read_json(path, dict) or {}
        if missing := {"set", "task", "metric", "value", "count"} - score.keys():
            raise UserError(f"{path}: no {min(missing)!r} in it: run the score stage again")
        some = spread(path.parent, score["task"], samples)
        decoding = (read_record(path.parent, "decode") or {}).get("settings", {})
        sets = tags.setdefault(path.parent.parent.name, {})
        sets[score["set"]] = SetResult(score, some, decoding)
    return dict(sorted(tags.items(), key=lambda item: (item[0] != MAIN_TAG, item[0])))


def spread(folder: Path, task: str, count: int) -> list[Item]:
    """`count` answers of a task, evenly spread over the set: chosen by place, not by quality."""
    if count < 1 or not (folder / "hyp.jsonl").is_file():
        return []
    items = [item for item in read_items(folder / "hyp.jsonl") if item.task == task]
    return [items[place] for place in evenly(count, len(items))]


def read_json(path: Path, kind: type) -> Any:
    """The content of a JSON file; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}): remove it and run its stage") from error
    if not isinstance(value, kind):
        raise UserError(f"{path}: expected a {kind.__name__}, found a {type(value).__name__}")
    return value
