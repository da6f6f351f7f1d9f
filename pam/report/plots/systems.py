"""Comparison of systems, from their stored results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pam.analysis.plots.canvas import interval, new_figure, plain, save, style
from pam.report.units import metric_digits, metric_label
from pam.score.metric import metric_called

Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]


def plot_bars(systems: Scores, out: Path) -> Path:
    """A panel for each set with a bar for each system and its 95 % interval; axes start at 0.

    `systems` maps names to {set: score}. A system without a score of a set has no bar there.
    """
    sets = _sets(systems)
    columns = 2 if len(sets) == 4 else min(len(sets), 3)
    rows = -(-len(sets) // columns)
    height = rows * (1.1 + 0.34 * len(systems))
    figure, axes = new_figure(rows, columns, 2.2 + 3.1 * columns, height, sharey=True)
    for axis, name in zip(axes, sets, strict=False):
        for y, scores in enumerate(systems.values()):
            if name in scores:
                _bar(axis, y, scores[name])
        metric = next(s[name]["metric"] for s in systems.values() if name in s)
        axis.set_xlim(left=0)
        axis.set_title(plain(name), fontsize=10)
        less = ", less is better" if not metric_called(metric).higher_is_better else ""
        axis.set_xlabel(plain(metric_label(metric)) + less, fontsize=9)
        axis.set_yticks(range(len(systems)), [plain(system) for system in systems], fontsize=9)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    axes[0].set_ylim(len(systems) - 0.4, -0.6)
    for axis in axes[len(sets) :]:
        axis.set_visible(False)
    return save(figure, out)


def _bar(axis: Any, y: int, score: Mapping[str, Any]) -> None:
    value = score["value"]
    axis.barh(y, value, 0.7, color="#b5cfe8", edgecolor="black", linewidth=0.6)
    if score.get("ci95"):
        interval(axis, value, *score["ci95"], y)
    text = f" {value:.{metric_digits(score['metric'])}f}"
    axis.text(0, y - 0.04, text, va="bottom", fontsize=7)  # above the interval, which may reach 0


def plot_radar(systems: Scores, out: Path) -> Path | None:
    """Sets as spokes; on each the best system is at the rim and the worst at the inner ring.

    It shows only sets that every system was scored on. None if there are fewer than three, or only
    one system. The scale of a spoke is the range of these systems; the labels give it.
    """
    sets = [name for name in _sets(systems) if all(name in s for s in systems.values())]
    if len(sets) < 3 or len(systems) < 2:
        return None
    value_KN = np.array([[s[name]["value"] for name in sets] for s in systems.values()])
    metrics = [next(iter(systems.values()))[name]["metric"] for name in sets]
    less_N = np.array([not metric_called(metric).higher_is_better for metric in metrics])
    place_KN = place(value_KN, less_N)
    angles = np.linspace(0, 2 * np.pi, len(sets), endpoint=False)
    figure, (axis,) = new_figure(1, 1, 7.6, 6.6, subplot_kw={"projection": "polar"})
    for number, (name, place_N) in enumerate(zip(systems, place_KN, strict=True)):
        closed = np.append(place_N, place_N[0])
        axis.plot(np.append(angles, angles[0]), closed, **style(number), label=plain(name))
    worst_N = np.where(less_N, value_KN.max(0), value_KN.min(0))
    best_N = np.where(less_N, value_KN.min(0), value_KN.max(0))
    labels = [
        f"{plain(name)}\n{worst:.{digits}f} → {best:.{digits}f}"
        for name, worst, best, digits in zip(
            sets, worst_N, best_N, map(metric_digits, metrics), strict=True
        )
    ]
    axis.set_xticks(angles, labels, fontsize=9)
    axis.tick_params(axis="x", pad=10)
    for label, angle in zip(axis.get_xticklabels(), angles, strict=True):
        side = np.cos(angle)
        label.set_horizontalalignment(
            "left" if side > 0.1 else "right" if side < -0.1 else "center"
        )
    axis.set_rlabel_position(180 / len(sets))  # between two spokes
    axis.set_yticks([0.25, 1.0], ["worst", "best"], fontsize=8)
    for label in axis.get_yticklabels():
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
    axis.set_ylim(0, 1.05)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return save(figure, out)


def place(value_KN: np.ndarray, less_N: np.ndarray) -> np.ndarray:
    """0.25 for the worst of each column, 1 for the best; all 1 if they are equal."""
    good_KN = np.where(less_N, -value_KN, value_KN)
    span_N = good_KN.max(0) - good_KN.min(0)
    rel_KN = np.divide(
        good_KN - good_KN.min(0), span_N, out=np.ones_like(good_KN), where=span_N > 0
    )
    return 0.25 + 0.75 * rel_KN


def _sets(systems: Scores) -> list[str]:
    return list(dict.fromkeys(name for scores in systems.values() for name in scores))
