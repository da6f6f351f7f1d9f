"""Figures of early exit, from exits.json alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pam.analysis.plots.canvas import new_figure, plain, save, style

CRITERIA = ("softmax", "margin", "entropy", "cosine", "gate")
Found = Mapping[str, Any]


def draw_exits(found: Found, folder: Path) -> list[Path]:
    """The figures of one result."""
    return [
        plot_agreement({found["name"]: found}, folder / "agreement.png"),
        plot_criteria(found, folder / "criteria.png"),
        plot_classes(found, folder / "classes.png"),
    ]


def draw_page(results: Mapping[str, Found], folder: Path) -> list[Path]:
    """The figures of the page: all models' agreement, each model's criteria."""
    drawn = [plot_agreement(results, folder / "agreement.png")]
    drawn += [plot_criteria(v, folder / f"criteria_{k}.png") for k, v in results.items()]
    return drawn + [plot_classes(v, folder / f"classes_{k}.png") for k, v in results.items()]


def plot_agreement(results: Mapping[str, Found], out: Path) -> Path:
    """A panel for each model, a line for each set; x: depth in layers, points within layers too."""
    figure, axes = new_figure(1, len(results), 1.2 + 3.6 * len(results), 3.6, sharey=True)
    for axis, (name, found) in zip(axes, results.items(), strict=True):
        depth = [(i + 1) * found["layers"] / found["points"] for i in range(found["points"])]
        for number, (set_name, entry) in enumerate(found["sets"].items()):
            value, low, high = zip(*entry["agreement"], strict=True)
            look = style(number) | {"marker": ""}
            axis.plot(depth, value, **look, label=plain(set_name))
            axis.fill_between(depth, low, high, color=look["color"], alpha=0.15, linewidth=0)
        axis.set(title=plain(name), xlabel="layer", ylim=(0, 101))
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=7)
    axes[0].set_ylabel("agreement with the last layer, %")
    return save(figure, out)


def plot_criteria(found: Found, out: Path) -> Path:
    """A panel for each set, a line for each criterion, and the oracle."""
    sets = found["sets"]
    figure, axes = new_figure(1, len(sets), 1.8 + 3.2 * len(sets), 4.0, sharey=True)
    for axis, (set_name, entry) in zip(axes, sets.items(), strict=True):
        names = [name for name in CRITERIA if name in entry["criteria"]]
        for number, name in enumerate(names):
            points = entry["criteria"][name]["1"]
            x, y = ([p[key][0] for p in points] for key in ("layer", "agreement"))
            axis.plot(x, y, **style(number), label=name)
        points = entry["patience"]["1"]
        x, y = ([p[key][0] for p in points] for key in ("layer", "agreement"))
        axis.plot(x, y, **style(len(names)), label="patience")
        per_layer = found["points"] // found["layers"]
        static = [value for value, *_ in entry["agreement"]][per_layer - 1 :: per_layer]
        layers = range(1, found["layers"] + 1)
        axis.plot(layers, static, color="grey", linewidth=1, label="static")
        axis.plot(entry["oracle"]["layer"][0], 100, "k*", markersize=9, label="oracle")
        axis.set(title=plain(set_name), xlabel="mean exit layer", ylim=(0, 103))
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("agreement with the last layer, %")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return save(figure, out)


def plot_classes(found: Found, out: Path) -> Path:
    """A panel for each set: the mean oracle layer of each kind of token, with its interval."""
    sets = found["sets"]
    figure, axes = new_figure(1, len(sets), 1.2 + 2.8 * len(sets), 2.6, sharex=True)
    for axis, (set_name, entry) in zip(axes, sets.items(), strict=True):
        kinds = entry["classes"]["kind"]
        for y, kind in enumerate(kinds):
            value, low, high = kinds[kind]["oracle"]
            axis.errorbar(value, y, xerr=[[value - low], [high - value]], fmt="o", color="black")
        labels = [f"{plain(kind)} ({kinds[kind]['tokens']})" for kind in kinds]
        axis.set_yticks(range(len(kinds)), labels, fontsize=8)
        axis.set(title=plain(set_name), xlabel="mean oracle layer")
        axis.set_ylim(len(kinds) - 0.5, -0.5)
        axis.title.set_fontsize(9)
        axis.grid(axis="x", alpha=0.3)
    return save(figure, out)
