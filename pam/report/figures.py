"""The figures of one experiment or of several, with their captions."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pam.analysis.figures import draw_analysis
from pam.analysis.layers import layer_weights
from pam.analysis.plots import routing
from pam.analysis.plots import weights as weight_plots
from pam.report.plots import curves as curve_plots
from pam.report.plots import systems
from pam.report.results import Results

CAPTIONS = {
    "curves": "Training: every statistic by step; dashed and hollow: training, solid: development.",
    "weights": (
        "Fusion weights W of equation 5, layer by layer: each hidden state's share of Σ|W| over "
        "the fused features of an expert; − if its mean weight is negative. A weight shows what is "
        "mixed, not what is used: states may be large or small, FFN_o may ignore a fused feature, "
        "and the last state of every encoder also reaches FFN_o without W."
    ),
    "weights_bands": (
        "The same for thirds of each encoder's layers (Figure 3). Red dashes: the start of "
        "training with equal weights; a band with more states starts higher."
    ),
    "weights_bands_norm": (
        "The same with every |W| multiplied by the mean norm of its feature f = FFN_e(h). Red "
        "dashes: the norms alone. This does not measure use either: see the importance below."
    ),
    "router_confusion": "Prompts of each task (rows) and the chosen expert (columns).",
    "posteriors": "Posteriors of the unseen prompts over the experts (equation 8); black is 1.",
    "margins": "Share of the unseen prompts of a task whose margin p₁ − p₂ is at most x.",
    "robustness": "Prompts routed to their task's expert: as written, changed, and paraphrased.",
    "importance": (
        "Change of the dev loss when the hidden states of an encoder, or of a third of its layers, "
        "are zero (95 % interval, same utterances; their number follows the task). Each task has "
        "its own scale. The model was not trained with missing states: a rise shows that it relies "
        "on them."
    ),
    "forced_experts": "Dev loss of each task with each expert, independent of the prompt.",
    "similarity": (
        "Similarity of the encoders' states (Table 12); layers at equal relative depth are paired."
    ),
    "systems_bars": "Systems by set, with 95 % intervals.",
    "systems_radar": (
        "The same; on each spoke the best of these systems is at the rim and the worst at the "
        "inner ring, even if they differ little."
    ),
    "layer_preference": (
        "Mixtures of a single encoder: each hidden state's share of |W|, by expert (the claim of "
        "Figure 1). Dotted: the start of training."
    ),
}


def can_draw() -> bool:
    """Whether matplotlib is installed, which is optional (pip install .[report])."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(exp: Path, results: Results) -> list[Path]:
    """Draw all figures whose data exist into exp/figures; returns the PNGs."""
    folder = exp / "figures"
    curves, router, analysis = results["curves"], results["router"], results["analysis"] or {}
    files = [curve_plots.plot_curves(curves, folder / "curves.png")] if curves else []
    files += _draw_weights(exp, results["config"], analysis, folder)
    if router is not None:
        files.append(routing.plot_confusion(router, folder / "router_confusion.png"))
    return files + draw_analysis(analysis, folder)


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


def draw_comparison(experiments: Sequence[tuple[Path, Results]], folder: Path) -> list[Path]:
    """Draw the figures that compare `experiments` (exp/NAME, its results) into `folder`."""
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
