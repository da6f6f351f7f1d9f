"""Figures 1 and 3 as tables: what share of an expert's weights each encoder's layers have."""

import numpy as np

from pam.analysis.layers import band_shares
from pam.paper.origin import made_with
from pam.paper.spec import TableSpec
from pam.paper.store import Store, stored_runs
from pam.report.markdown import GAP, escape, number, table

SHARED = "shared"


def render(spec: TableSpec, store: Store, budget: str) -> list[str]:
    """One table a system and seed: its routed experts, as the paper shows them."""
    parts = [
        "Shares of Σ|W| (equation 5) in thirds of each encoder's layers; of the shared expert too, "
        "which the paper leaves out. A weight says what is mixed, not what is used."
    ]
    for row in spec.systems():
        runs, gap = stored_runs(row, store, spec.scale, budget)
        if gap:
            parts.append(f"{GAP}, {escape(row.name)}: {escape(gap)}.")
        for seed, result in runs.items():
            parts += [f"{escape(row.name)}, seed {seed}:", _shares(result)]
    return parts + made_with(spec, store, budget)


def _shares(result: dict) -> str:
    weights = result.get("weights")
    if not weights:
        return f"{GAP}: this system has no weights over layers."
    states = {name: {"num_states": count} for name, count in result["encoders"].items()}
    rows, header = [], []
    for expert in sorted(weights, key=lambda name: name == SHARED):
        found = band_shares(np.asarray(weights[expert]), states)
        header = [f"{escape(e)}, {band}:" for e, parts in found.items() for band in parts]
        cells = [number(share, 3) for parts in found.values() for share in parts.values()]
        rows.append([escape(expert), *cells])
    return table(["expert", *header], rows)
