"""Helpers of all figures: creation, styles that differ without colour, and output.

Every figure is written as PNG and as SVG with text labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pam.atomic import atomic_path

# Neighbouring colours differ in lightness too.
COLOURS = ("#1f3b73", "#e08214", "#7fb8e6", "#8c2d04", "#4d9221", "#c994c7", "#252525", "#bdbd22")
MARKERS = "osD^vPX*"
LINES = ("-", "--", "-.", ":")
BANDS = {"low": ("#d6e6f4", ""), "middle": ("#7fb8e6", "///"), "high": ("#1f3b73", "..")}
SHADES = "Greys"
DPI = 130


def new_figure(rows: int, columns: int, width: float, height: float, **options: Any):
    """A figure of `width` × `height` inches and the flat list of its axes."""
    # pyplot would keep every figure in memory and look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def save(figure: Any, out: Path) -> Path:
    """Write `out` (….png) and the SVG of the same name. Equal figures give equal bytes."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": out.stem}):
        with atomic_path(out.with_suffix(".svg")) as part:
            figure.savefig(part, format="svg", metadata={"Date": None})
        with atomic_path(out) as part:
            figure.savefig(part, format="png", dpi=DPI)
    return out


def plain(text: str) -> str:
    """`text` escaped, so that matplotlib does not read it as a formula."""
    return str(text).replace("$", r"\$")


def style(number: int) -> dict[str, Any]:
    """Colour, marker and line of the `number`-th series; 32 series differ even in grey."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
        "markersize": 4,
    }


def interval(axis: Any, value: float, low: float, high: float, y: float) -> None:
    """A horizontal interval at `y`, black with a white border, visible on any bar."""
    spread = [[max(value - low, 0)], [max(high - value, 0)]]
    for colour, line, cap in (("white", 3.2, 3.5), ("black", 1.3, 2.5)):
        options = {"elinewidth": line, "capthick": line, "capsize": cap, "ecolor": colour}
        axis.errorbar(value, y, xerr=spread, fmt="none", zorder=3, **options)


def matrix(
    axis: Any,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    texts: Sequence[Sequence[str]],
    limits: tuple[float, float] | None = None,
    size: float = 9,
) -> Any:
    """A table of shaded cells with their numbers; NaN stays white. Returns the image."""
    low, high = limits or (float(np.nanmin(values)), float(np.nanmax(values)))
    image = axis.imshow(values, cmap=SHADES, vmin=low, vmax=max(high, low + 1e-9), aspect="auto")
    axis.set_yticks(range(len(rows)), [plain(row) for row in rows])
    axis.set_xticks(range(len(columns)), [plain(c) for c in columns])
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            # Light text on dark cells.
            dark = (values[row, column] - low) > 0.55 * max(high - low, 1e-9)
            ink = "white" if dark else "black"
            axis.text(column, row, text, ha="center", va="center", color=ink, fontsize=size)
    return image
