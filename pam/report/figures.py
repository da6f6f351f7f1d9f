"""Which figures an experiment, or several, can have, and what each of them shows."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pam.analysis.layers import layer_weights
from pam.analysis.plots import measures, routing
from pam.analysis.plots import weights as weight_plots
from pam.report.plots import curves as curve_plots
from pam.report.plots import systems
from pam.report.results import Results

CAPTIONS = {
    "curves": "Training: every statistic by step; dashed and hollow: training, solid: development.",
    "weights": (
        "Fusion weights W of equation 5, layer by layer: the share of an expert's Σ|W|, over its "
        "fused features, that each hidden state has; − where its mean weight is negative. A weight "
        "says what is mixed in, not what is used: states may be large or small, FFN_o may ignore a "
        "fused feature, and the last state of every encoder reaches FFN_o beside W too."
    ),
    "weights_bands": (
        "The same in thirds of each encoder's layers (Figure 3). Red dashes: where training "
        "started, all weights alike; a band of more states starts higher."
    ),
    "weights_bands_norm": (
        "The same with every |W| times the mean norm of the feature f = FFN_e(h) that it weighs. "
        "Red dashes: the norms alone. Still no measure of use: see the importance below."
    ),
    "router_confusion": "Prompts of each task (rows) and the expert they were sent to.",
    "posteriors": "Posteriors of the unseen prompts over the experts (equation 8); black is 1.",
    "margins": "Share of the unseen prompts of a task whose margin p₁ − p₂ is at most x.",
    "robustness": "Prompts sent to their task's expert: as written, with slips, and paraphrased.",
    "importance": (
        "Change of the dev loss when the hidden states of an encoder, or of a third of its layers, "
        "are zero (95 % interval, same utterances; their number beside the task). The tasks have "
        "scales of their own. It was not trained to miss anything: a rise says that it relies on "
        "what is gone."
    ),
    "forced_experts": "Dev loss of each task through each expert, whatever its prompt says.",
    "similarity": (
        "How alike the encoders' states are (Table 12); layers at equal relative depth are paired."
    ),
    "systems_bars": "Systems by set, with 95 % intervals.",
    "systems_radar": (
        "The same; on each spoke the best of these systems is at the rim and the worst at the "
        "inner ring, however near each other they are."
    ),
    "layer_preference": (
        "Mixtures of one encoder each: the share of |W| of each hidden state, by expert (the "
        "claim of Figure 1). Dotted: where training started."
    ),
}


def can_draw() -> bool:
    """matplotlib is an extra (pip install .[report])."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(exp: Path, results: Results) -> list[Path]:
    """Draw what can be drawn into exp/figures; returns the PNGs."""
    folder = exp / "figures"
    curves, router, analysis = results["curves"], results["router"], results["analysis"] or {}
    files = [curve_plots.plot_curves(curves, folder / "curves.png")] if curves else []
    files += _draw_weights(exp, results["config"], analysis, folder)
    if router is not None:
        files.append(routing.plot_confusion(router, folder / "router_confusion.png"))
    files += _draw_routing(analysis.get("routing"), folder)
    files += _draw_importance(analysis.get("importance"), folder)
    if analysis.get("similarity"):
        files.append(measures.plot_similarity(analysis["similarity"], folder / "similarity.png"))
    return files


def _draw_weights(
    exp: Path, config: Mapping[str, Any], analysis: Mapping[str, Any], folder: Path
) -> list[Path]:
    weights = layer_weights(exp / "model.pth", config)
    if not weights:
        return []
    encoders = config["encoders"]
    files = [
        weight_plots.plot_weights(weights, encoders, folder / "weights.png"),
        weight_plots.plot_bands(weights, encoders, folder / "weights_bands.png"),
    ]
    norms = (analysis.get("norms") or {}).get("mapped")
    if norms:
        norms_S = np.concatenate([norms[name] for name in encoders])
        out = folder / "weights_bands_norm.png"
        files.append(weight_plots.plot_bands(weights, encoders, out, norms_S))
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
    """Each task's dev loss per token, of the utterances' sums in analysis.json."""
    return {task: sum(entry["sums"]) / sum(entry["tokens"]) for task, entry in base.items()}


def draw_comparison(experiments: Sequence[tuple[Path, Results]], folder: Path) -> list[Path]:
    """Draw what needs several experiments, (exp/NAME, its results), into `folder`."""
    scores = {results["name"]: results["sets"] for _, results in experiments}
    files: list[Path] = []
    if len(scores) > 1 and any(scores.values()):
        files.append(systems.plot_bars(scores, folder / "systems_bars.png"))
        radar = systems.plot_radar(scores, folder / "systems_radar.png")
        files += [radar] if radar else []
    preference = {
        next(iter(config["encoders"])): weights
        for exp, config in ((exp, results["config"]) for exp, results in experiments)
        if len(config.get("encoders") or {}) == 1
        and (weights := layer_weights(exp / "model.pth", config))
    }
    if preference:
        out = folder / "layer_preference.png"
        files.append(weight_plots.plot_preference(preference, out))
    return files
