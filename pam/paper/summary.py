"""The tables of a scale together: where they are, what the paper says of them, its errata."""

from collections.abc import Sequence

from pam.paper.cells import table_cells
from pam.paper.claims import OPEN, RULES, claims_section, pairs, verdict
from pam.paper.document import EMPTY, errata_section, labels_of
from pam.paper.printed import load_paper
from pam.paper.spec import TableSpec
from pam.paper.store import Store
from pam.report.markdown import escape


def summary_document(specs: Sequence[TableSpec], store: Store, budget: str) -> str:
    """The whole file; tables are linked as NAME.md beside it."""
    parts = [
        "# The paper's tables",
        f"Scale {escape(specs[0].scale)}, budget {escape(budget)}. Written by `python -m "
        "pam.bin.table --table all`: run it again, do not edit.",
        "\n".join(f"- [{escape(spec.title)}]({spec.name}.md)" for spec in specs),
        "# What the paper says",
    ]
    counts: dict[str, int] = {}
    sections: list[str] = []
    for spec in specs:
        if not spec.claims:
            continue
        cells = table_cells(spec, store, budget)
        for claim in spec.claims:
            found = verdict(pairs(claim, spec, cells))
            counts[found] = counts.get(found, 0) + 1
        paper = load_paper()[spec.paper] if spec.paper else EMPTY
        *_, lines = claims_section(spec, cells, labels_of(spec, paper))
        sections += [f"## {escape(spec.title)}", lines]
    total = ", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items()))
    parts += [f"{sum(counts.values())} claims ({total}). {RULES}"] if counts else [f"{OPEN}."]
    return "\n\n".join([*parts, *sections, *errata_section(None)]) + "\n"
