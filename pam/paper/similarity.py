"""Table 12: how alike the encoders are, from the analysis that is stored with a system."""

from pam.paper.origin import made_with
from pam.paper.printed import load_paper
from pam.paper.spec import TableSpec
from pam.paper.store import Store, stored_runs
from pam.report.analysis import similarity_tables
from pam.report.blocks import to_markdown
from pam.report.markdown import GAP, escape, number, table

HOW = "`./run.sh --table 12` does it, where exp/NAME is"


def render(spec: TableSpec, store: Store, budget: str) -> list[str]:
    parts = ["## Ours"]
    for row in spec.systems():
        runs, gap = stored_runs(row, store, spec.scale, budget)
        if gap:
            parts.append(f"{GAP}, {escape(row.name)}: {escape(gap)}.")
        for seed, result in runs.items():
            parts += _measures(f"{escape(row.name)}, seed {seed}", result.get("similarity"))
    paper = load_paper()[spec.paper]
    rows = [
        [escape(paper.rows[name].label), *map(number, cells.values())]
        for name, cells in paper.cells.items()
    ]
    header = ["cosine", *(f"{escape(column.label)}:" for column in paper.columns.values())]
    papers = ["## The paper's", table(header, rows)]
    return [*parts, *papers, *made_with(spec, store, budget)]


def _measures(name: str, found: list | None) -> list[str]:
    if not found:
        return [f"{GAP}, {name}: not analysed ({HOW})."]
    tables, missing = similarity_tables(found)
    gap = [f"{GAP}, {name}: {missing}."] if missing else []
    return [f"{name}:", *(to_markdown([one]) for one in tables), *gap]
