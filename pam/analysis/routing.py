"""Margins of the prompt router, and its robustness to changed and paraphrased prompts."""

# N prompts, R experts

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pam.analysis.perturb import PERTURBATIONS
from pam.config import check_keys, load_yaml
from pam.data.prompts import Prompts
from pam.errors import PamError
from pam.score.significance import wilson95

PROBES = Path(__file__).with_name("probes.yaml")
DIGITS = 4
Posteriors = Callable[[Sequence[str]], Float[np.ndarray, "N R"]]


def load_probes(path: Path = PROBES) -> dict[str, dict[str, list[str]]]:
    """{"paraphrases": {task: prompts}, "other_tasks": {kind: prompts}}."""
    probes = load_yaml(path)
    check_keys(probes, ("paraphrases", "other_tasks"), str(path))
    for part, groups in probes.items():
        for name, texts in groups.items():
            if not texts or not all(isinstance(text, str) for text in texts):
                raise PamError(f"{path}: {part}.{name}: expected a list of prompts")
    return probes


def margins(p_NR: Float[np.ndarray, "N R"]) -> Float[np.ndarray, " N"]:
    """p₁ − p₂: the probability of the chosen expert minus that of the second."""
    p_NR = np.asarray(p_NR)
    if p_NR.shape[-1] == 1:
        return p_NR[:, 0]
    second_first_N2 = np.sort(p_NR, axis=-1)[:, -2:]
    return second_first_N2[:, 1] - second_first_N2[:, 0]


def analyse_routing(
    posteriors: Posteriors,
    prompts: Mapping[str, Prompts],
    probes: Mapping[str, Mapping[str, Sequence[str]]],
    experts: Sequence[str],
    seed: int = 0,
) -> dict[str, Any]:
    """Margins, robustness, and routing of other tasks' prompts, from the unseen prompts.

    `posteriors` returns p of equation 8 for prompts; `experts` are the names of its R columns. If
    experts have no tasks (Table 11, "without task label"), no expert is right for a task, and every
    `correct` is None.
    """
    labelled = list(experts) == list(prompts)
    usual = {task: posteriors(own.unseen) for task, own in prompts.items()}
    perturbed = {
        kind: {task: posteriors([f(p, seed) for p in own.unseen]) for task, own in prompts.items()}
        for kind, f in PERTURBATIONS.items()
    }
    return {
        "experts": list(experts),
        "posteriors": {task: _rounded(p_NR) for task, p_NR in usual.items()},
        "margins": {task: _margin_summary(margins(p_NR)) for task, p_NR in usual.items()},
        "robustness": {"as written": _robustness(usual, usual, experts, labelled)}
        | {kind: _robustness(found, usual, experts, labelled) for kind, found in perturbed.items()},
        "paraphrases": _paraphrases(posteriors, probes["paraphrases"], experts, labelled),
        "other_tasks": _answers(posteriors, probes["other_tasks"], experts),
    }


def _margin_summary(margin_N: np.ndarray) -> dict[str, float]:
    return {
        "least": round(float(margin_N.min()), DIGITS),
        "tenth": round(float(np.quantile(margin_N, 0.1)), DIGITS),
        "median": round(float(np.median(margin_N)), DIGITS),
    }


def _robustness(
    found: Mapping[str, np.ndarray],
    usual: Mapping[str, np.ndarray],
    experts: Sequence[str],
    labelled: bool,
) -> dict[str, Any]:
    """Numbers of prompts routed to their task's expert, and routed differently than as written."""
    chosen = {task: p_NR.argmax(-1) for task, p_NR in found.items()}
    count = sum(map(len, chosen.values()))
    changed = sum(int((chosen[task] != usual[task].argmax(-1)).sum()) for task in chosen)
    return {
        **_right(chosen, experts, labelled),
        "changed": changed,
        "median_margin": round(
            float(np.median(np.concatenate([margins(p) for p in found.values()]))), DIGITS
        ),
        "count": count,
    }


def _right(
    chosen: Mapping[str, np.ndarray], experts: Sequence[str], labelled: bool
) -> dict[str, Any]:
    if not labelled:
        return {"correct": None, "ci95": None}
    right = {task: int((which == experts.index(task)).sum()) for task, which in chosen.items()}
    total = sum(map(len, chosen.values()))
    return {"correct": sum(right.values()), "ci95": wilson95(sum(right.values()), total)}


def _paraphrases(
    posteriors: Posteriors,
    paraphrases: Mapping[str, Sequence[str]],
    experts: Sequence[str],
    labelled: bool,
) -> dict[str, Any]:
    """The paraphrases of tasks with an expert in this system."""
    known = {task: texts for task, texts in paraphrases.items() if task in experts or not labelled}
    answers = _answers(posteriors, known, experts)
    right = sum(answer["kind"] == answer["expert"] for answer in answers) if labelled else None
    return {
        "correct": right,
        "ci95": wilson95(right, len(answers)) if labelled and answers else None,
        "count": len(answers),
        "answers": answers,
    }


def _answers(
    posteriors: Posteriors, groups: Mapping[str, Sequence[str]], experts: Sequence[str]
) -> list[dict[str, Any]]:
    """One entry per prompt: the chosen expert, its probability and the margin."""
    pairs = [(kind, text) for kind, texts in groups.items() for text in texts]
    if not pairs:
        return []
    p_NR = posteriors([text for _, text in pairs])
    return [
        {
            "kind": kind,
            "prompt": text,
            "expert": experts[int(p_R.argmax())],
            "probability": round(float(p_R.max()), DIGITS),
            "margin": round(float(margin), DIGITS),
        }
        for (kind, text), p_R, margin in zip(pairs, p_NR, margins(p_NR), strict=True)
    ]


def _rounded(p_NR: np.ndarray) -> list[list[float]]:
    return np.round(p_NR.astype(np.float64), DIGITS).tolist()
