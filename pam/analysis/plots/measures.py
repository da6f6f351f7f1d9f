"""Figures of the importance of encoders, and of their similarity."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pam.analysis.plots.canvas import BANDS, interval, new_figure, plain, save, style
from pam.analysis.similarity import MEASURES

PER_ROW = 3


def plot_importance(zeroed: Mapping[str, Mapping[str, Any]], out: Path) -> Path:
    """A panel for each task: the change of its dev loss (nats per token, 95 % interval) when an
    encoder, or a band of its layers, is zero. Each panel has its own scale."""
    names, tasks = list(zeroed), list(next(iter(zeroed.values())))
    height = 1.0 + 0.3 * len(names)
    figure, axes = new_figure(1, len(tasks), 2.2 + 2.3 * len(tasks), height, sharey=True)
    for axis, task in zip(axes, tasks, strict=True):
        for y, name in enumerate(names):
            entry = zeroed[name][task]
            value = entry["change"]
            colour, hatch = BANDS.get(name.rpartition(" ")[2], ("#969696", "xx"))
            axis.barh(y, value, color=colour, hatch=hatch, edgecolor="black", linewidth=0.6)
            interval(axis, value, *entry["ci95"], y)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(f"{plain(task)} ({zeroed[names[0]][task]['count']})", fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    axes[0].set_yticks(range(len(names)), [plain(name) for name in names], fontsize=9)
    axes[0].invert_yaxis()
    figure.supxlabel("change of the dev loss when zeroed, nats a token", fontsize=10)
    return save(figure, out)


def plot_similarity(pairs: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """A panel for each measure of Table 12 that exists, a line for each pair of encoders."""
    kinds = [kind for kind in MEASURES if any(v is not None for p in pairs for v in p[kind])]
    columns = min(len(kinds), PER_ROW)
    rows = -(-len(kinds) // columns)
    figure, axes = new_figure(rows, columns, 1.0 + 3.4 * columns, 0.6 + 3.2 * rows)
    for axis in axes[len(kinds) :]:
        axis.set_visible(False)
    for axis, kind in zip(axes, kinds, strict=False):
        for number, pair in enumerate(pairs):
            if pair[kind][0] is not None:
                axis.plot(pair[kind], **style(number), label=plain(" & ".join(pair["encoders"])))
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.set(title=MEASURES[kind], xlabel="layer of the deeper encoder")
        axis.title.set_fontsize(9)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylim(-1.05 if kind != "cka" else -0.03, 1.05)
        axis.grid(alpha=0.3)
    handles, names = axes[len(kinds) - 1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return save(figure, out)
