"""Score one decoded set: score.json, and for recognition the alignment beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pam.atomic import write_json, write_text
from pam.data.tasks import get_task, task_names
from pam.score import METRICS, wer
from pam.score.items import Item, read_items


def score_set(
    folder: Path, seed: int = 0, train_captions: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One result per task of exp/NAME/TAG/SET.

    A set of one task gives score.json; a combined one gives score_TASK.json for each and names the
    sets SET/TASK.
    """
    items = read_items(folder / "hyp.jsonl")
    by_task: dict[str, list[Item]] = {}
    for item in items:
        by_task.setdefault(item.task, []).append(item)
    results = []
    for task, chosen in by_task.items():
        single = len(by_task) == 1
        result = {
            "set": folder.name if single else f"{folder.name}/{task}",
            "task": task,
            **score_items(task, chosen, seed, train_captions),
            "prompts": prompt_counts(chosen),
        }
        write_json(folder / ("score.json" if single else f"score_{task}.json"), result)
        results.append(result)
        if get_task(task).metric == "wer":
            name = "wer_alignment.txt" if single else f"wer_alignment_{task}.txt"
            write_text(folder / name, wer.alignment_text(chosen))
    return results


def score_items(
    task: str, items: Sequence[Item], seed: int, train_captions: Sequence[str]
) -> dict[str, Any]:
    metric = get_task(task).metric
    more = {"train_captions": train_captions} if metric == "caption" else {}
    return METRICS.get(metric)(items, seed, **more)


def prompt_counts(items: Sequence[Item]) -> Mapping[str, int | None]:
    """How many utterances had a seen prompt, and how many went to their task's expert (None where
    the experts have no tasks)."""
    routed = [item for item in items if item.expert in task_names()]
    return {
        "seen": sum(item.prompt_seen is True for item in items),
        "unseen": sum(item.prompt_seen is False for item in items),
        "routed_right": sum(item.expert == item.task for item in routed) if routed else None,
    }
