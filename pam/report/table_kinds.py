"""How a table is rendered: by the function of its kind, with the same head and foot for all."""

from collections.abc import Callable

from pam.report.markdown import GAP, escape
from pam.report.paper import load_paper
from pam.report.table_cells import Store
from pam.report.table_document import errata_section
from pam.report.table_spec import TableSpec
from pam.table import Table

Render = Callable[[TableSpec, Store, str], list[str]]

# A kind's function takes the table, the stored results by name and the budget, and gives the
# paragraphs between title and errata. One that is not there yet leaves a gap.
KINDS = Table(
    "kind of table",
    {
        "systems": "pam.report.table_document:render",
        "data": "pam.report.table_data:render",
        "prompts": "pam.report.table_prompts:render",
        "similarity": "pam.report.table_similarity:render",
        "sizes": "pam.report.table_sizes:render",
        "figure1": "pam.report.table_weights:figure1",
        "figure3": "pam.report.table_weights:figure3",
    },
)


def table_document(spec: TableSpec, store: Store, budget: str) -> str:
    """The whole file."""
    parts = [
        f"# {escape(spec.title)}",
        f"Scale {escape(spec.scale)}, budget {escape(budget)}. Written by `python -m "
        "pam.bin.table`: run it again, do not edit.",
        *_body(spec, store, budget),
    ]
    notes = load_paper()[spec.paper].notes if spec.paper else ()
    if spec.paper:
        parts += errata_section(spec.paper, notes)
    return "\n\n".join(parts) + "\n"


def _body(spec: TableSpec, store: Store, budget: str) -> list[str]:
    render = renderer(spec.kind)
    if render is None:
        module = KINDS.entries[spec.kind].replace(":", ".")
        return [f"{GAP}: nothing renders this table yet ({escape(module)} is missing)."]
    return render(spec, store, budget)


def renderer(kind: str) -> Render | None:
    """None where the module of the kind does not exist yet."""
    try:
        return KINDS.get(kind)
    except ModuleNotFoundError as error:
        if error.name != KINDS.entries[kind].partition(":")[0]:
            raise  # something that it needs is not installed
        return None
