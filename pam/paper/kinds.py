"""Whole documents: a table, rendered by the function of its kind, and the summary of all tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pam.config import load_yaml
from pam.paper.cells import table_cells
from pam.paper.claims import OPEN, RULES, claims_list, pairs, verdict
from pam.paper.deciding import NOTE, claims_part
from pam.paper.document import errata_section, labels_of
from pam.paper.figures import figure_part
from pam.paper.plan import budget_length
from pam.paper.printed import printed_table
from pam.paper.spec import TableSpec
from pam.paper.store import Store
from pam.paths import CONF
from pam.registry import Registry
from pam.report.markdown import escape

# A kind's function takes the table, the stored results by name and the budget. It returns the
# paragraphs between title and errata.
KINDS = Registry(
    "kind of table",
    {
        "systems": "pam.paper.document:render",
        "data": "pam.paper.data:render",
        "prompts": "pam.paper.prompts:render",
        "similarity": "pam.paper.inside:render_similarity",
        "sizes": "pam.paper.sizes:render",
        "weights": "pam.paper.inside:render_weights",
    },
)


def table_document(
    spec: TableSpec, store: Store, budget: str, drawn: Mapping[Path, str] | None = None
) -> str:
    """The whole file; `drawn` are figures in its folder."""
    parts = [
        f"# {escape(spec.title)}",
        f"Scale {escape(spec.scale)}: {_models(spec)}. Budget {escape(budget)} "
        f"({escape(budget_length(spec.scale, budget))}). Written by `python -m pam.bin.table`: run "
        "it again, do not edit.",
        *KINDS.get(spec.kind)(spec, store, budget),
        *figure_part(drawn or {}),
    ]
    if spec.paper:
        parts += errata_section(spec.paper, printed_table(spec.paper).notes)
    return "\n\n".join(parts) + "\n"


def _models(spec: TableSpec) -> str:
    """The encoders, the paper's encoders that they replace, those of rows, and the LLM."""
    conf = load_yaml(CONF / "scale" / f"{spec.scale}.yaml")
    places: dict[str, list[str]] = {}
    for place, name in (conf.get("stand_ins") or {}).items():
        places.setdefault(name, []).append(place)
    encoders = [
        name + (f" in the place of {' and '.join(places[name])}" if name in places else "")
        for name in conf["encoders"]
    ]
    words = f"{', '.join(encoders)}, of which a system has all unless its row names some"
    words += "".join(f"; {name} is {path}" for name, path in spec.added.items())
    return escape(f"{words}; LLM {conf['llm_conf']['path']}", longest=None)


def _others(specs: Sequence[TableSpec]) -> list[str]:
    """Where a scale has sets of its own: which they are, in the words of the claims."""
    sets: dict[str, str] = {}
    for spec in (spec for spec in specs if spec.claims and not spec.paper_sets):
        printed = printed_table(spec.paper)
        labels = labels_of(spec, printed)
        there = (name for name in printed.columns if name in spec.columns)
        sets |= {name: labels[name] for name in there if not spec.columns[name].missing}
    if not sets:
        return []
    return [
        "Encoders, LLM, data and tests of this scale are not the paper's: a claim that holds here "
        "does not confirm the paper, and one that does not hold does not refute it. The sets are: "
        f"{', '.join(sets.values())}."
    ]


def summary_document(specs: Sequence[TableSpec], store: Store, budget: str) -> str:
    """The whole file; it links NAME.md of each table in its folder."""
    parts = [
        "# The paper's tables",
        f"Scale {escape(specs[0].scale)}: {_models(specs[0])}. Budget {escape(budget)}. Written by "
        "`python -m pam.bin.table --table all`: run it again, do not edit.",
        "\n".join(f"- [{escape(spec.title)}]({spec.name}.md)" for spec in specs),
        "# What the paper says",
        *_others(specs),
    ]
    counts: Counter[str] = Counter()
    sections: list[str] = []
    for spec in (spec for spec in specs if spec.claims):
        cells = table_cells(spec, store, budget)
        found = [pairs(claim, spec, cells) for claim in spec.claims]
        counts.update(verdict(own, spec.seeds) for own in found)
        labels = labels_of(spec, printed_table(spec.paper))
        sections += [f"## {escape(spec.title)}", claims_list(spec, found)]
        sections += claims_part(spec, cells, labels)
    total = ", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items()))
    parts += [f"{counts.total()} claims ({total}). {RULES}", NOTE] if counts else [f"{OPEN}."]
    return "\n\n".join([*parts, *sections, *errata_section(None)]) + "\n"
