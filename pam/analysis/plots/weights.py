"""Figures of fusion weights: by layer, in the three bands of Figure 3, and for single encoders."""

# M fused features of an expert, S hidden states of all encoders

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from pam.analysis.layers import Encoders, band_shares, bands, shares
from pam.analysis.plots.canvas import BANDS, matrix, new_figure, plain, save, style

Weights = Mapping[str, Float[np.ndarray, "M S"]]
PER_ROW = 3


def plot_weights(weights: Weights, encoders: Encoders, out: Path) -> Path:
    """Cells: a state's percentage of an expert's Σ|W|; − if its mean weight is negative.

    Rows are experts, columns states. Every weight starts at 1 / S.
    """
    share_KS = 100 * np.stack([shares(weight_MS) for weight_MS in weights.values()])
    negative_KS = np.stack([weight_MS.mean(0) < 0 for weight_MS in weights.values()])
    texts = [
        [f"{'−' if minus else ''}{share:.1f}" for share, minus in zip(row, signs, strict=True)]
        for row, signs in zip(share_KS, negative_KS, strict=True)
    ]
    states = [n for conf in encoders.values() for n in range(conf["num_states"])]
    width = 2.0 + 0.42 * len(states)
    figure, (axis,) = new_figure(1, 1, width, 1.5 + 0.42 * len(weights))
    limits = (0.0, float(share_KS.max()))
    image = matrix(axis, share_KS, list(weights), [str(n) for n in states], texts, limits, size=7)
    _name_encoders(axis, encoders)
    axis.set_xlabel("hidden state of the encoder (0: before the first layer)")
    figure.colorbar(
        image, label=f"share of |W|, %\n(start: {100 / len(states):.1f})", pad=0.01, aspect=10
    )
    return save(figure, out)


def _name_encoders(axis, encoders: Encoders) -> None:
    start = 0
    for name, conf in encoders.items():
        middle = start + (conf["num_states"] - 1) / 2
        axis.text(middle, -0.65, plain(name), ha="center", va="bottom", fontsize=9)
        if start:
            axis.axvline(start - 0.5, color="black", linewidth=1.5)
        start += conf["num_states"]


def plot_bands(
    weights: Weights,
    encoders: Encoders,
    out: Path,
    norms_S: Float[np.ndarray, " S"] | None = None,
) -> Path:
    """Figure 3: each band's share of |W| for every expert (of |W| · ‖f‖ with `norms_S`).

    A dash marks the start of training, where every weight is 1 / S. The paper leaves out the shared
    expert; here it comes last.
    """
    order = sorted(weights, key=lambda name: name == "shared")
    columns = min(len(order), PER_ROW)
    rows = -(-len(order) // columns)
    size = (1.0 + 3.3 * columns, 0.6 + 2.7 * rows)
    figure, axes = new_figure(rows, columns, *size, sharey=True)
    total = sum(conf["num_states"] for conf in encoders.values())
    start_S = np.full(total, 1 / total) if norms_S is None else norms_S / norms_S.sum()
    for axis, name in zip(axes, order, strict=False):
        _bars(axis, band_shares(shares(weights[name], norms_S), encoders), start_S, encoders)
        axis.set_title(
            plain(f"expert {name}" if name != "shared" else "shared expert"), fontsize=10
        )
    for axis in axes[len(order) :]:
        axis.set_visible(False)
    quantity = "|W|" if norms_S is None else "|W| · ‖f‖"
    figure.supylabel(f"share of {quantity}, %", fontsize=10)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return save(figure, out)


def _bars(axis, found: Mapping[str, Mapping[str, float]], start_S, encoders: Encoders) -> None:
    start = band_shares(start_S, encoders)
    for place, band in enumerate(BANDS):
        colour, hatch = BANDS[band]
        points = [(x, name) for x, name in enumerate(found) if band in found[name]]
        xs = [x + 0.27 * (place - 1) for x, _ in points]
        heights = [100 * found[name][band] for _, name in points]
        axis.bar(
            xs, heights, 0.25, color=colour, hatch=hatch, edgecolor="black", label=f"{band} layers"
        )
        starts = [100 * start[name][band] for _, name in points]
        for ink, width in (("white", 3.8), ("red", 2.5)):  # visible on dark bars, even in grey
            axis.hlines(
                starts,
                [x - 0.155 for x in xs],
                [x + 0.155 for x in xs],
                color=ink,
                linewidth=width,
                zorder=3,
                label="all weights alike" if (place, ink) == (2, "red") else None,
            )
    axis.set_xticks(range(len(found)), [_two_lines(plain(name)) for name in found], fontsize=8)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)


def _two_lines(name: str) -> str:
    return name.replace("_", "_\n", 1) if len(name) > 10 else name


def plot_preference(preference: Mapping[str, Weights], out: Path) -> Path:
    """Figure 1's claim for single encoders: each task's expert over the layers of one encoder.

    `preference` maps the encoder of a single-encoder mixture to its weights. Lines show the share
    of |W|; the dotted line shows the start of training.
    """
    count = len(preference)
    figure, axes = new_figure(1, count, 1.6 + 3.6 * count, 3.6, sharey=True)
    for axis, (encoder, weights) in zip(axes, preference.items(), strict=True):
        states = next(iter(weights.values())).shape[1]
        for number, (name, weight_MS) in enumerate(weights.items()):
            axis.plot(100 * shares(weight_MS), **style(number), label=plain(name))
        axis.axhline(100 / states, color="grey", linestyle=":", linewidth=1)
        for band in list(bands(states).values())[1:]:
            axis.axvline(band.start - 0.5, color="grey", linewidth=0.5)
        axis.set(title=plain(encoder), xlabel="hidden state")
    axes[0].set_ylabel("share of |W|, %")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9)
    return save(figure, out)
