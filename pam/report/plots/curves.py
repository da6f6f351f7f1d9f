"""Curves of the training: loss, token accuracy and accuracy of the router."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pam.analysis.plots.canvas import COLOURS, MARKERS, new_figure, save

CURVES = ("loss", "loss_routed", "acc", "router_acc")
TITLES = {
    "loss": "loss",
    "loss_routed": "loss, the router chooses",
    "acc": "token accuracy",
    "router_acc": "router accuracy",
}
UNITS = {
    "loss": "nats a token",
    "loss_routed": "nats a token",
    "acc": "share of tokens",
    "router_acc": "share of prompts",
}
Entries = Sequence[Mapping[str, Any]]


def plot_curves(curves: Entries, out: Path) -> Path:
    """One panel per statistic. Each task has a marker and a colour; training is dashed and hollow.

    `curves` are the entries of curves.json: {phase, epoch, step, train: {…}, dev: {…}}.
    """
    phases = list(dict.fromkeys(entry["phase"] for entry in curves))
    panels = [(phase, kind) for phase in phases for kind in CURVES if _has(curves, phase, kind)]
    names = {name for entry in curves for name in entry["train"] | entry["dev"]}
    everyone = sorted({_who(n, kind) for n in names for kind in CURVES if is_of_kind(n, kind)})
    columns = min(max(len(panels), 1), 2)
    rows = max(-(-len(panels) // columns), 1)
    figure, axes = new_figure(rows, columns, 5.6 * columns, 3.4 * rows)
    for axis, (phase, kind) in zip(axes, panels, strict=False):
        _panel(axis, [entry for entry in curves if entry["phase"] == phase], kind, everyone)
        axis.set(title=f"{phase}: {TITLES[kind]}", xlabel="step", ylabel=UNITS[kind])
        axis.grid(alpha=0.3)
        axis.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return save(figure, out)


def _who(name: str, kind: str) -> str:
    """The task of a statistic."""
    return name.removeprefix(kind).lstrip("_") or "all"


def _panel(axis: Any, entries: Entries, kind: str, everyone: Sequence[str]) -> None:
    names = sorted({n for e in entries for n in e["dev"] | e["train"] if is_of_kind(n, kind)})
    for name in names:
        who = _who(name, kind)
        number = everyone.index(who)
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        for part, line, fill in (("train", "--", "white"), ("dev", "-", colour)):
            points = [(e["step"], e[part][name]) for e in entries if name in e[part]]
            if points:
                axis.plot(
                    *zip(*points, strict=True),
                    color=colour,
                    marker=marker,
                    linestyle=line,
                    linewidth=1,
                    markersize=4,
                    markerfacecolor=fill,
                    label=f"{who}, {part}",
                )


def is_of_kind(name: str, kind: str) -> bool:
    """Whether a statistic is of a kind, as `loss_asr_clean` is of kind `loss`."""
    owner = max((c for c in CURVES if name == c or name.startswith(f"{c}_")), key=len, default=None)
    return owner == kind


def _has(curves: Entries, phase: str, kind: str) -> bool:
    entries = [entry for entry in curves if entry["phase"] == phase]
    return any(
        is_of_kind(name, kind) for entry in entries for name in entry["train"] | entry["dev"]
    )
