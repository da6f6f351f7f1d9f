"""Figures of an experiment: curves of the training, and the experts' weights over the layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pam.atomic import atomic_path
from pam.errors import UserError
from pam.model.experts import expert_names, experts_have_tasks

# M fused features of an expert, S hidden states of all encoders
CURVES = ("loss", "acc", "router_acc")
TITLES = {"loss": "loss", "acc": "token accuracy", "router_acc": "router accuracy"}


def draw(exp: Path, curves: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> list[Path]:
    """Draw what can be drawn into exp/figures; returns the files."""
    files = [plot_curves(curves, exp / "figures" / "curves.png")] if curves else []
    weights = layer_weights(exp / "model.pth", config)
    if weights:
        files.append(plot_weights(weights, config["encoders"], exp / "figures" / "weights.png"))
    return files


def plot_curves(curves: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """One panel per statistic; training dashed, development solid, one colour a task.

    `curves` are the entries of curves.json: {phase, epoch, step, train: {…}, dev: {…}}.
    """
    phases = list(dict.fromkeys(entry["phase"] for entry in curves))
    panels = [(phase, kind) for phase in phases for kind in CURVES if _has(curves, phase, kind)]
    figure, axes = _subplots(1, max(len(panels), 1))
    for axis, (phase, kind) in zip(axes, panels, strict=False):
        _panel(axis, [entry for entry in curves if entry["phase"] == phase], kind)
        axis.set(title=f"{phase}: {TITLES[kind]}", xlabel="step")
        axis.legend(fontsize="x-small")
    return _save(figure, out)


def _panel(axis: Any, entries: Sequence[Mapping[str, Any]], kind: str) -> None:
    names = sorted({n for e in entries for n in e["dev"] | e["train"] if _is(n, kind)})
    for colour, name in enumerate(names):
        for part, style in (("train", ".--"), ("dev", "o-")):
            points = [(e["step"], e[part][name]) for e in entries if name in e[part]]
            if points:
                axis.plot(
                    *zip(*points, strict=True),
                    style,
                    color=f"C{colour}",
                    markersize=3,
                    label=f"{name} {part}",
                )


def layer_weights(
    checkpoint: Path, config: Mapping[str, Any]
) -> dict[str, Float[np.ndarray, "M S"]]:
    """W of equation 5 for every expert of a checkpoint; {} where the system has no experts."""
    import torch

    if not checkpoint.is_file():
        return {}
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    total = sum(conf["num_states"] for conf in config["encoders"].values())
    softmax = (config.get("fusion_conf") or {}).get("weights") == "softmax"
    found = {}
    for key, name in _experts(state, config).items():
        weight_MS = state[key].float()
        if weight_MS.shape[-1] != total:
            raise UserError(
                f"{checkpoint}: {key} weighs {weight_MS.shape[-1]} states, the encoders of the "
                f"configuration have {total}: checkpoint and config.yaml are of different systems"
            )
        found[name] = (weight_MS.softmax(-1) if softmax else weight_MS).numpy()
    return found


def plot_weights(
    weights: Mapping[str, Float[np.ndarray, "M S"]],
    encoders: Mapping[str, Mapping[str, Any]],
    out: Path,
) -> Path:
    """A heat map: a row for each expert, the mean over its fused features; a column for a layer.

    White is 1 / S, the plain mean over all states, where every weight starts.
    """
    rows_KS = np.stack([weight_MS.mean(0) for weight_MS in weights.values()])
    start = 1 / rows_KS.shape[1]
    limit = max(float(np.abs(rows_KS - start).max()), 1e-3)
    figure, (axis,) = _subplots(1, 1, width=max(6.0, 0.3 * rows_KS.shape[1]))
    image = axis.imshow(
        rows_KS, cmap="RdBu_r", vmin=start - limit, vmax=start + limit, aspect="auto"
    )
    axis.set_yticks(range(len(weights)), list(weights))
    labels = [f"{name} {n}" for name, conf in encoders.items() for n in range(conf["num_states"])]
    axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize="x-small")
    for end in np.cumsum([conf["num_states"] for conf in encoders.values()])[:-1]:
        axis.axvline(end - 0.5, color="black", linewidth=1)
    figure.colorbar(image, label="weight W")
    return _save(figure, out)


def _experts(state: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    """Keys of the experts' weights in a checkpoint: name of the expert."""
    names = {"fusion.shared.weight": "shared"}
    routed = expert_names(config.get("tasks") or [], experts_have_tasks(config))
    names |= {f"fusion.experts.{n}.weight": name for n, name in enumerate(routed)}
    return {key: name for key, name in names.items() if key in state}


def _is(name: str, kind: str) -> bool:
    """Is the statistic `loss_asr_clean` one of kind `loss`?"""
    owner = max((c for c in CURVES if name == c or name.startswith(f"{c}_")), key=len, default=None)
    return owner == kind


def _has(curves: Sequence[Mapping[str, Any]], phase: str, kind: str) -> bool:
    entries = [entry for entry in curves if entry["phase"] == phase]
    return any(_is(name, kind) for entry in entries for name in entry["train"] | entry["dev"])


def _subplots(rows: int, columns: int, width: float | None = None):
    # Not pyplot: it keeps every figure alive and looks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width or 4.5 * columns, 3.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _save(figure: Any, out: Path) -> Path:
    with atomic_path(out) as part:
        figure.savefig(part, format="png", dpi=120)
    return out
