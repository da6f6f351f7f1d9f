"""Score one decoded set: score.json, utterances.json, and further files of its metric."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pam.atomic import write_json, write_text
from pam.data.tasks import get_task, task_names
from pam.score import METRICS, SBERT
from pam.score.captions import further
from pam.score.clusters import cluster_entry
from pam.score.items import Item, clusters_of, read_items
from pam.score.metric import Metric, Options
from pam.score.utterances import Statistics, utterances_file, write_utterances


def score_set(folder: Path, options: Options) -> list[dict[str, Any]]:
    """Score exp/NAME/TAG/SET; returns one result per task.

    A set with one task gets score.json. A combined set gets one score_TASK.json per task, and the
    results' sets are called SET/TASK.
    """
    items = read_items(folder / "hyp.jsonl")
    by_task: dict[str, list[Item]] = {}
    for item in items:
        by_task.setdefault(item.task, []).append(item)
    results = []
    for task, chosen in by_task.items():
        single = len(by_task) == 1
        file = folder / ("score.json" if single else f"score_{task}.json")
        scores, statistics = score_items(task, chosen, options, earlier(file))
        result = {
            "set": folder.name if single else f"{folder.name}/{task}",
            "task": task,
            **scores,
            "prompts": prompt_counts(chosen),
        }
        ids = [item.id for item in chosen]
        write_utterances(utterances_file(file), ids, statistics, clusters_of(chosen))
        write_json(file, result)
        results.append(result)
        for name, text in metric_of(task).files(chosen).items():
            write_text(folder / f"{name if single else f'{name}_{task}'}.txt", text)
    return results


def metric_of(task: str) -> Metric:
    """The metric of a task."""
    return METRICS.get(get_task(task).metric)()


def earlier(file: Path) -> dict[str, str]:
    """Further metrics in an existing `file`, with the model of each, to be kept."""
    try:
        metrics = json.loads(file.read_text(encoding="utf-8")).get("metrics", {})
    except (OSError, ValueError):
        return {}
    return {name: entry.get("model", SBERT) for name, entry in metrics.items() if "value" in entry}


def score_items(
    task: str, items: Sequence[Item], options: Options, kept: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, Statistics]]:
    """The result of one task, and the statistics of its utterances.

    `kept`: metrics to measure in addition to those of `options`, each with its own model.
    """
    metric = metric_of(task)
    result = metric.score(items, options)
    statistics = result.pop("statistics")
    if metric.is_of_captions:
        models = {**(kept or {}), **dict.fromkeys(options.metrics, options.sbert)}
        for name, model in models.items():
            found, more = further(items, [name], options.seed, model)
            result.setdefault("metrics", {}).update(found)
            statistics |= more
    result["clusters"] = cluster_entry(clusters_of(items))  # what the intervals are limited to
    return result, statistics


def prompt_counts(items: Sequence[Item]) -> Mapping[str, int | None]:
    """Numbers of utterances with a seen prompt, and with a right expert (None if experts have no
    tasks)."""
    routed = [item for item in items if item.expert in task_names()]
    return {
        "seen": sum(item.prompt_seen is True for item in items),
        "unseen": sum(item.prompt_seen is False for item in items),
        "routed_right": sum(item.routed_right for item in routed) if routed else None,
    }
