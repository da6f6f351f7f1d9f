"""Table 5: the training data of the systems of a scale."""

from pam.paper.printed import load_paper
from pam.paper.spec import TableSpec
from pam.paper.store import Store
from pam.report.markdown import GAP, escape, number, table


def render(spec: TableSpec, store: Store, budget: str) -> list[str]:
    """Hours and utterances by task, as stored with each system; groups of systems that agree."""
    groups: dict[str, tuple[dict, list[str]]] = {}
    for name, result in store.items():
        alike = (result["scale"], result["budget"]) == (spec.scale, budget)
        if alike and result.get("training_data"):
            key = repr(sorted(result["training_data"].items()))
            groups.setdefault(key, (result["training_data"], []))[1].append(name)
    if not groups:
        return [f"{GAP}: no stored result says what it was trained on."]
    parts = []
    for sets, names in groups.values():
        parts += [f"Training data of {', '.join(map(escape, names))}:", _table(spec, sets)]
    return parts


def _table(spec: TableSpec, sets: dict) -> str:
    paper = load_paper()[spec.paper]
    rows = []
    for task, printed in spec.conf.tasks.items():
        own = {name: entry for name, entry in sets.items() if entry["task"] == task}
        cells = paper.cells[printed]
        rows.append(
            [
                escape(task),
                ", ".join(map(escape, own)) or GAP,
                number(sum(entry["hours"] for entry in own.values()) if own else None),
                str(sum(entry["utterances"] for entry in own.values())) if own else GAP,
                escape(paper.rows[printed].label),
                str(cells["hours"]),
                str(cells["samples"]),
            ]
        )
    return table(["task", "sets", "h:", "utterances:", "the paper's", "h:", "samples:"], rows)
