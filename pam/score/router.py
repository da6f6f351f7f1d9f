"""Accuracy of the router on training prompts, unseen prompts and plain requests."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from pam.data.prompts import Prompts
from pam.score.significance import wilson95

SCORED_SPLITS = ("seen", "unseen", "plain")
EITHER = " or "  # joins the tasks of a request with several right experts
Posteriors = Callable[[Sequence[str]], Tensor]


def router_accuracy(
    posteriors: Posteriors, prompts: Mapping[str, Prompts], tasks: Sequence[str]
) -> dict[str, Any]:
    """For each of `SCORED_SPLITS`: correct, count, accuracy (percent), ci95, tasks, misrouted.

    `posteriors` returns [N, R] for N prompts; `tasks` are the names of the R experts. Tasks without
    an expert and splits without prompts are left out. Requests with several right experts are
    counted separately, as "TASK or TASK".
    """
    by_split = {split: by_right_experts(prompts, tasks, split) for split in SCORED_SPLITS}
    return {
        split: _accuracy(posteriors, found, tasks) for split, found in by_split.items() if found
    }


def by_right_experts(
    prompts: Mapping[str, Prompts], tasks: Sequence[str], split: str
) -> dict[tuple[str, ...], list[str]]:
    """The prompts of a split, without duplicates, grouped by their right experts."""
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for task in (task for task in prompts if task in tasks):
        own = prompts[task]
        for prompt in own.plain if split == "plain" else own.split(split):
            names = own.shared.get(prompt, {task})
            right = tuple(name for name in tasks if name in names)
            found.setdefault(right, {})[prompt] = None
    return {right: list(texts) for right, texts in found.items()}


def _accuracy(
    posteriors: Posteriors, split: Mapping[tuple[str, ...], Sequence[str]], tasks: Sequence[str]
) -> dict[str, Any]:
    counts, misrouted = {}, []
    for right, prompts in split.items():
        wrong = _misrouted(posteriors(prompts), right, prompts, tasks)
        counts[EITHER.join(right)] = {
            "correct": len(prompts) - len(wrong),
            "count": len(prompts),
        }
        misrouted += wrong
    correct = sum(entry["correct"] for entry in counts.values())
    count = sum(entry["count"] for entry in counts.values())
    return {
        "correct": correct,
        "count": count,
        "accuracy": round(100 * correct / count, 4),
        "ci95": wilson95(correct, count),
        "tasks": counts,
        "misrouted": misrouted,
    }


def _misrouted(
    p_NR: Tensor, right: Sequence[str], prompts: Sequence[str], tasks: Sequence[str]
) -> list[dict[str, Any]]:
    probability_N, expert_N = p_NR.max(-1)
    return [
        {
            "task": EITHER.join(right),
            "prompt": prompt,
            "chosen": tasks[expert],
            "probability": round(p, 4),
        }
        for prompt, expert, p in zip(
            prompts, expert_N.tolist(), probability_N.tolist(), strict=True
        )
        if tasks[expert] not in right
    ]
