"""Does the prompt reach its expert? Counted over the training prompts and the unseen ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from pam.data.prompts import Prompts
from pam.score.significance import wilson95

Posteriors = Callable[[Sequence[str]], Tensor]


def router_accuracy(
    posteriors: Posteriors, prompts: Mapping[str, Prompts], tasks: Sequence[str]
) -> dict[str, Any]:
    """{"seen": …, "unseen": …} with correct, count, accuracy (percent), ci95, tasks, misrouted.

    `posteriors` gives [N, R] for N prompts; `tasks` names the R experts. Tasks without an expert
    are left out.
    """
    pools = {
        "seen": {task: pool.train for task, pool in prompts.items() if task in tasks},
        "unseen": {task: pool.unseen for task, pool in prompts.items() if task in tasks},
    }
    return {name: _accuracy(posteriors, pool, tasks) for name, pool in pools.items()}


def _accuracy(
    posteriors: Posteriors, pool: Mapping[str, Sequence[str]], tasks: Sequence[str]
) -> dict[str, Any]:
    counts, misrouted = {}, []
    for task, prompts in pool.items():
        wrong = _misrouted(posteriors(prompts), task, prompts, tasks)
        counts[task] = {"correct": len(prompts) - len(wrong), "count": len(prompts)}
        misrouted += wrong
    correct = sum(entry["correct"] for entry in counts.values())
    count = sum(entry["count"] for entry in counts.values())
    return {
        "correct": correct,
        "count": count,
        "accuracy": round(100 * correct / count, 4) if count else None,
        "ci95": wilson95(correct, count) if count else None,
        "tasks": counts,
        "misrouted": misrouted,
    }


def _misrouted(
    p_NR: Tensor, task: str, prompts: Sequence[str], tasks: Sequence[str]
) -> list[dict[str, Any]]:
    probability_N, expert_N = p_NR.max(-1)
    return [
        {"task": task, "prompt": prompt, "chosen": tasks[expert], "probability": round(p, 4)}
        for prompt, expert, p in zip(
            prompts, expert_N.tolist(), probability_N.tolist(), strict=True
        )
        if tasks[expert] != task
    ]
