"""The figures of a paper table, from the stored results alone."""

# S hidden states of all encoders

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from pam.analysis.plots import weights as weight_plots
from pam.paper.cells import table_cells
from pam.paper.document import words_of
from pam.paper.printed import printed_table
from pam.paper.spec import Row, TableSpec
from pam.paper.store import Store, stored_runs
from pam.report.markdown import escape
from pam.report.plots import systems
from pam.report.units import metric_label

Drawn = dict[Path, str]  # {PNG: what it shows}; the SVG is in the same folder


def draw(spec: TableSpec, store: Store, budget: str, folder: Path) -> Drawn:
    """Draw the figures that the results allow; files are TABLE_KIND.png."""
    kinds = {"systems": draw_systems, "weights": draw_weights}
    return kinds[spec.kind](spec, store, budget, folder) if spec.kind in kinds else {}


def figure_part(drawn: Mapping[Path, str]) -> list[str]:
    """Paragraphs of Markdown; the files are in the folder of the document."""
    parts = []
    for path, caption in drawn.items():
        svg = path.with_suffix(".svg").name
        parts += [f"![{path.stem}]({path.name})", f"{caption} ([SVG]({svg}))"]
    return ["## Figures", *parts] if parts else []


def draw_systems(spec: TableSpec, store: Store, budget: str, folder: Path) -> Drawn:
    """Bars and radar of the rows that have values, if there are at least two."""
    cells = table_cells(spec, store, budget)
    words = words_of(spec, printed_table(spec.paper))
    scores = {}
    for row in (row for row in spec.rows if spec.rows[row].how != "best"):
        known = {
            f"{column.set} {metric_label(column.metric)}": {
                "metric": column.metric,
                "value": cells[row][name].value,
                "ci95": cells[row][name].ci95,
            }
            for name, column in spec.columns.items()
            if name in spec.shown and cells[row][name].value is not None
        }
        if known:
            scores[words[row]] = known
    if len(scores) < 2:
        return {}
    bars = systems.plot_bars(scores, folder / f"{spec.name}_bars.png")
    radar = systems.plot_radar(scores, folder / f"{spec.name}_radar.png")
    drawn = {bars: "Means over seeds with 95 % intervals, as in the table."}
    if radar:
        drawn[radar] = (
            "On each spoke the best of these systems is at the rim and the worst at the inner "
            "ring, however near each other they are."
        )
    return drawn


def draw_weights(spec: TableSpec, store: Store, budget: str, folder: Path) -> Drawn:
    """Bands of Figure 3 for each row of several encoders; Figure 1 of the rows of one."""
    drawn: Drawn = {}
    single = {}
    for row in spec.systems():
        encoders, shares = mean_shares(row, store, spec.scale, budget)
        if len(encoders) == 1:
            single |= {next(iter(encoders)): shares}
        elif encoders:
            states = {name: {"num_states": count} for name, count in encoders.items()}
            out = folder / f"{spec.name}_{row.name}.png"
            drawn[weight_plots.plot_bands(shares, states, out)] = (
                f"{escape(row.name)}: the table above, mean over seeds. Red dashes: where training "
                "started, all weights alike; a band of more states starts higher."
            )
    if single:
        out = folder / f"{spec.name}_layers.png"
        drawn[weight_plots.plot_preference(single, out)] = (
            "Mixtures of one encoder each, mean over seeds: the share of |W| of each hidden state, "
            "by expert. Dotted: where training started."
        )
    return drawn


def mean_shares(
    row: Row, store: Store, scale: str, budget: str
) -> tuple[dict[str, int], dict[str, Float[np.ndarray, "1 S"]]]:
    """{encoder: states} and {expert: share of Σ|W| of each state}, the mean over seeds that were
    made of the same encoders; both empty where there is none."""
    runs = [run for run in stored_runs(row, store, scale, budget)[0].values() if run.get("weights")]
    if not runs:
        return {}, {}
    encoders = runs[0]["encoders"]
    alike = [run["weights"] for run in runs if run["encoders"] == encoders]
    return encoders, {
        expert: np.mean([weights[expert] for weights in alike], axis=0)[None] for expert in alike[0]
    }
