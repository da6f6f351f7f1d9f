"""Sizes, counted from architectures: encoders and LoRA (Table 6), what each system trains."""

from typing import Any

from pam.config import load_yaml, read_layers
from pam.model.architecture import architecture, count, dimensions, on_meta
from pam.model.sizes import llm_with_lora, sizes
from pam.paper.printed import load_paper
from pam.paper.spec import TableSpec
from pam.paper.store import Store
from pam.paths import CONF, conf_file
from pam.report.markdown import GAP, escape, table
from pam.train.systems import combine

MILLION = 1e6
PAPER = "paper"


def render(spec: TableSpec, store: Store, budget: str) -> list[str]:
    """Our counts; in brackets the paper's, where it prints another value."""
    paper = load_paper()[spec.paper]
    llm_conf = load_yaml(CONF / "scale" / f"{spec.scale}.yaml")["llm_conf"]
    rows = []
    for path, printed in paper.cells.items():
        found = model_sizes(path, llm_conf)
        cells = [_cell(found.get(column), printed[column]) for column in paper.columns]
        rows.append([escape(path), *cells])
    header = ["model", *(f"{escape(column.label)}:" for column in paper.columns.values())]
    return [
        "Millions of parameters, of LLMs LoRA's at this scale; counted without any download. The "
        "paper's in brackets where it prints another value; it cuts parameters to whole millions.",
        table(header, rows),
    ]


def model_sizes(path: str, llm_conf: dict[str, Any]) -> dict[str, float]:
    """The paper's columns by name; `norm` is not in a configuration."""
    if "inputs" in architecture(path):  # an encoder
        counted = count(on_meta(path))
    else:
        llm, frozen = llm_with_lora({**llm_conf, "path": path})
        counted = count(llm) - frozen
    return {**dimensions(path), "parameters": counted / MILLION}


def _cell(ours: float | None, printed: Any) -> str:
    if ours is None:
        return f"{GAP} ({escape(printed)})"
    text = f"{ours:.2f}" if isinstance(ours, float) else str(ours)
    return text if int(ours) == printed else f"{text} ({escape(printed)})"


def parameters_part(spec: TableSpec, labels: dict[str, str]) -> list[str]:
    """How many parameters the systems train, at the table's scale and at the paper's."""
    scales = list(dict.fromkeys([spec.scale, PAPER]))
    rows = [
        [labels[name], *(cell for scale in scales for cell in _millions(row.system, scale))]
        for name, row in spec.rows.items()
    ]
    header = [
        f"{what} at scale {scale}:" for scale in scales for what in ("trained", "of it active")
    ]
    text = (
        "Millions, LoRA's among them, counted from the configurations; active: what an answer uses."
    )
    if not spec.conf.beyond:
        text += (
            " The paper cuts to whole millions: 37 trained of the concatenation, 29 of the reduced "
            "PaM (26 active)."
        )
    return ["## Parameters", text, table(["system", *header], rows)]


def _millions(system: str, scale: str) -> list[str]:
    layers = read_layers(conf_file("scale", scale), conf_file("systems", system))
    counted = sizes(combine(*layers, []))
    return [f"{value / MILLION:.2f}" for value in (counted.trainable, counted.active)]
