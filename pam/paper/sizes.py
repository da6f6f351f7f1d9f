"""Table 6: sizes of encoders, and of LoRA in LLMs, counted from their architectures."""

from typing import Any

from pam.config import load_yaml
from pam.model.architecture import architecture, count, on_meta
from pam.model.sizes import llm_with_lora
from pam.paper.printed import load_paper
from pam.paper.spec import CONF, TableSpec
from pam.paper.store import Store
from pam.report.markdown import GAP, escape, table

# What the models' own configurations call the paper's columns.
KEYS = {
    "layers": ("encoder_layers", "num_hidden_layers"),
    "d_model": ("d_model", "hidden_size"),
    "d_ffn": ("encoder_ffn_dim", "intermediate_size"),
    "heads": ("encoder_attention_heads", "num_attention_heads"),
}


def render(spec: TableSpec, store: Store, budget: str) -> list[str]:
    """Ours, and in brackets the paper's where it prints something else."""
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
    spec = architecture(path)
    config = spec["config"]
    found = {
        column: next(config[key] for key in keys if key in config) for column, keys in KEYS.items()
    }
    found["d_head"] = config.get("head_dim", found["d_model"] // found["heads"])
    if "inputs" in spec:  # an encoder
        return {**found, "parameters": count(on_meta(path)) / 1e6}
    llm, frozen = llm_with_lora({**llm_conf, "path": path})
    return {**found, "parameters": (count(llm) - frozen) / 1e6}


def _cell(ours: float | None, printed: Any) -> str:
    if ours is None:
        return f"{GAP} ({escape(printed)})"
    text = f"{ours:.2f}" if isinstance(ours, float) else str(ours)
    return text if int(ours) == printed else f"{text} ({escape(printed)})"
