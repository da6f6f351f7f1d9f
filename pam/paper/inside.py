"""Table 12 and Figures 1 and 3: similarities and weights of trained models, run by run."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from pam.analysis.layers import band_shares
from pam.paper.origin import made_with
from pam.paper.printed import load_paper
from pam.paper.spec import TableSpec
from pam.paper.store import Store, stored_runs
from pam.report.analysis import similarity_tables
from pam.report.blocks import to_markdown
from pam.report.markdown import GAP, escape, number, table

ANALYSE = "`./run.sh --table 12` does it, where exp/NAME is"


def render_similarity(spec: TableSpec, store: Store, budget: str) -> list[str]:
    """Similarities of the encoders, ours and the paper's."""
    paper = load_paper()[spec.paper]
    rows = [
        [escape(paper.rows[name].label), *map(number, cells.values())]
        for name, cells in paper.cells.items()
    ]
    header = ["cosine", *(f"{escape(column.label)}:" for column in paper.columns.values())]
    return [
        "## Ours",
        *_each_run(spec, store, budget, _similarity),
        *("## The paper's", table(header, rows)),
        *made_with(spec, store, budget),
    ]


def render_weights(spec: TableSpec, store: Store, budget: str) -> list[str]:
    """The share of each encoder's layers in an expert's weights, routed experts first."""
    return [
        "Shares of Σ|W| (equation 5) in thirds of each encoder's layers; of the shared expert too, "
        "which the paper leaves out. A weight says what is mixed, not what is used.",
        *_each_run(spec, store, budget, _shares),
        *made_with(spec, store, budget),
    ]


def _each_run(
    spec: TableSpec, store: Store, budget: str, shown: Callable[[str, Any], list[str]]
) -> Iterator[str]:
    """The output of `shown` for the name and the result of each run, and the gaps."""
    for row in spec.systems():
        runs, gap = stored_runs(row, store, spec.scale, budget)
        if gap:
            yield f"{GAP}, {escape(row.name)}: {escape(gap)}."
        for seed, result in runs.items():
            yield from shown(f"{escape(row.name)}, seed {seed}", result)


def _similarity(name: str, result: Mapping[str, Any]) -> list[str]:
    if not result.get("similarity"):
        return [f"{GAP}, {name}: not analysed ({ANALYSE})."]
    tables, missing = similarity_tables(result["similarity"])
    gap = [f"{GAP}, {name}: {missing}."] if missing else []
    return [f"{name}:", *(to_markdown([one]) for one in tables), *gap]


def _shares(name: str, result: Mapping[str, Any]) -> list[str]:
    weights = result.get("weights")
    if not weights:
        return [f"{name}:", f"{GAP}: this system has no weights over layers."]
    states = {encoder: {"num_states": count} for encoder, count in result["encoders"].items()}
    rows, header = [], []
    for expert in sorted(weights, key=lambda expert: expert == "shared"):
        found = band_shares(np.asarray(weights[expert]), states)
        header = [f"{escape(e)}, {band}:" for e, parts in found.items() for band in parts]
        cells = [number(share, 3) for parts in found.values() for share in parts.values()]
        rows.append([escape(expert), *cells])
    return [f"{name}:", table(["expert", *header], rows)]
