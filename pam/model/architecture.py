"""Architectures of pretrained models, stored here so that sizes are known without a download.

architectures/NAME.json has `class` ("module:class") and the `config` values that set the size. For
an encoder it also has `inputs` (shapes of a forward pass; a string as last element is the type) and
the `seconds` of audio in them. NAME is the last part of a path: `openai/whisper-small`, a local
folder `whisper-small` and `cache:whisper-small` are one architecture. So are a model's "-instruct"
version and an original file NAME.pt. A local folder may have its own `architecture.json` instead.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pam.errors import PamError
from pam.registry import nearest

FOLDER = Path(__file__).with_name("architectures")
# The names in Table 6 → the names in the models' configurations.
DIMENSIONS = {
    "layers": ("encoder_layers", "num_hidden_layers"),
    "d_model": ("d_model", "hidden_size"),
    "d_ffn": ("encoder_ffn_dim", "intermediate_size"),
    "heads": ("encoder_attention_heads", "num_attention_heads"),
}


def architecture_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def architecture(path: str) -> dict[str, Any]:
    """The architecture of the model at a configuration's `path`."""
    name = path.removeprefix("cache:").rstrip("/").rpartition("/")[2].lower()
    file = FOLDER / f"{name.removesuffix('.pt').removesuffix('-instruct')}.json"
    if (own := Path(path) / "architecture.json").is_file():
        file = own
    if not file.is_file():
        raise PamError(
            f"{path}: unknown architecture: {nearest(name, architecture_names())}; "
            f"describe it in {file}"
        )
    return json.loads(file.read_text(encoding="utf-8"))


def dimensions(path: str) -> dict[str, int]:
    """Layers, heads and widths of a Transformer: `DIMENSIONS` and `d_head`."""
    config = architecture(path)["config"]
    found = {
        name: next(config[key] for key in keys if key in config)
        for name, keys in DIMENSIONS.items()
    }
    return {**found, "d_head": config.get("head_dim", found["d_model"] // found["heads"])}


def random_model(path: str) -> nn.Module:
    """The model at a configuration's `path` with random weights of torch's default type."""
    spec = architecture(path)
    module, _, name = spec["class"].partition(":")
    cls = getattr(importlib.import_module(module), name)
    return cls(cls.config_class(**spec["config"])).eval()


def on_meta(path: str) -> nn.Module:
    """The model at a configuration's `path` without weights, on torch's meta device."""
    with torch.device("meta"):
        return random_model(path)


def encoder_flops(path: str) -> tuple[float, float]:
    """(FLOPs of one forward pass, its seconds of audio); a multiply-add counts 2."""
    spec, model = architecture(path), on_meta(path)
    inputs = {name: meta_tensor(shape) for name, shape in spec["inputs"].items()}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs)
    return float(counter.get_total_flops()), float(spec["seconds"])


def meta_tensor(shape: list[Any]) -> torch.Tensor:
    *sizes, last = shape
    if isinstance(last, str):
        return torch.empty(sizes, dtype=getattr(torch, last), device="meta")
    return torch.empty(shape, device="meta")


def count(module: nn.Module | None) -> int:
    """Number of parameters of a module; tied ones count once."""
    return sum(p.numel() for p in module.parameters()) if module is not None else 0
