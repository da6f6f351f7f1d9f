"""The figures of an analysis, from analysis.json alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pam.analysis.plots import measures, routing


def draw_analysis(analysis: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw all available measurements; returns the PNGs."""
    files = _draw_routing(analysis.get("routing"), folder)
    files += _draw_importance(analysis.get("importance"), folder)
    if analysis.get("similarity"):
        files.append(measures.plot_similarity(analysis["similarity"], folder / "similarity.png"))
    return files


def _draw_routing(found: Mapping[str, Any] | None, folder: Path) -> list[Path]:
    if not found:
        return []
    posteriors, experts = found["posteriors"], found["experts"]
    files = [
        routing.plot_posteriors(posteriors, experts, folder / "posteriors.png"),
        routing.plot_margins(posteriors, experts, folder / "margins.png"),
    ]
    if found["paraphrases"]["correct"] is not None:
        files.append(routing.plot_robustness(found, folder / "robustness.png"))
    return files


def _draw_importance(found: Mapping[str, Any] | None, folder: Path) -> list[Path]:
    if not found or not found.get("complete"):
        return []
    files = [measures.plot_importance(found["zeroed"], folder / "importance.png")]
    if found["forced"]:
        base = base_losses(found["base"])
        files.append(routing.plot_forced(found["forced"], base, folder / "forced_experts.png"))
    return files


def base_losses(base: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Each task's dev loss per token, from the sums of the utterances in analysis.json."""
    return {task: sum(entry["sums"]) / sum(entry["tokens"]) for task, entry in base.items()}
