"""How a table is rendered: by the function of its kind, with the same head and foot for all."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pam.config import load_yaml
from pam.paper.document import errata_section
from pam.paper.figures import figure_part
from pam.paper.plan import budget_length
from pam.paper.printed import load_paper
from pam.paper.spec import CONF, TableSpec
from pam.paper.store import Store
from pam.registry import Registry
from pam.report.markdown import GAP, escape

Render = Callable[[TableSpec, Store, str], list[str]]

# A kind's function takes the table, the stored results by name and the budget, and gives the
# paragraphs between title and errata. Where a part of the project that it needs is missing, there
# is a gap.
KINDS = Registry(
    "kind of table",
    {
        "systems": "pam.paper.document:render",
        "data": "pam.paper.data:render",
        "prompts": "pam.paper.prompts:render",
        "similarity": "pam.paper.similarity:render",
        "sizes": "pam.paper.sizes:render",
        "weights": "pam.paper.weights:render",
    },
)


def table_document(
    spec: TableSpec, store: Store, budget: str, drawn: Mapping[Path, str] | None = None
) -> str:
    """The whole file, with the figures that lie beside it."""
    parts = [
        f"# {escape(spec.title)}",
        f"Scale {escape(spec.scale)}: {_models(spec.scale)}. Budget {escape(budget)} "
        f"({escape(budget_length(spec.scale, budget))}). Written by `python -m pam.bin.table`: run "
        "it again, do not edit.",
        *_body(spec, store, budget),
        *figure_part(drawn or {}),
    ]
    notes = load_paper()[spec.paper].notes if spec.paper else ()
    if spec.paper:
        parts += errata_section(spec.paper, notes)
    return "\n\n".join(parts) + "\n"


def _models(scale: str) -> str:
    """The encoders, those of the paper's that they stand for, and the LLM."""
    conf = load_yaml(CONF / "scale" / f"{scale}.yaml")
    places: dict[str, list[str]] = {}
    for place, name in (conf.get("stand_ins") or {}).items():
        places.setdefault(name, []).append(place)
    encoders = [
        name + (f" in the place of {' and '.join(places[name])}" if name in places else "")
        for name in conf["encoders"]
    ]
    return escape(f"{', '.join(encoders)}; LLM {conf['llm_conf']['path']}")


def _body(spec: TableSpec, store: Store, budget: str) -> list[str]:
    try:
        render: Render = KINDS.get(spec.kind)
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("pam."):
            raise  # a library that is not installed
        return [f"{GAP}: nothing renders this table yet ({escape(error.name)} is missing)."]
    return render(spec, store, budget)
