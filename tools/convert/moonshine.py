"""Moonshine's encoder (.ort, int8 weights) to a transformers folder in float32.

The graph computes with weight = int8 · scale + zero_point, so dequantising loses nothing: the
folder and the graph agree to float32 rounding.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import MoonshineConfig, Wav2Vec2FeatureExtractor
from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder

from convert.ort_graph import Node, read_ort
from convert.weights import load_exactly

HEADS = 8
# The share of each head that the rotary embedding turns: 32 of 52, as in the released config.
ROTARY = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.62}
DEQUANTISED = "_add_tensor"


def convert(source: Path, folder: Path) -> None:
    """Write config, weights and feature extractor into `folder`."""
    constants, nodes = read_ort(source)
    weights = {k: torch.from_numpy(np.array(v)) for k, v in _weights(constants, nodes)}
    model = MoonshineEncoder(_config(weights)).eval()
    load_exactly(model, weights)
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)


def _weights(
    constants: dict[str, np.ndarray], nodes: list[Node]
) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in constants.items():
        if re.fullmatch(r"(layers\.\d+\.|layer_norm|conv\d).*(weight|bias)", name):
            yield name, value
    for node in nodes:
        path = node.name.strip("/").replace("/", ".")
        if node.op == "Conv":
            yield node.inputs[1].removesuffix(DEQUANTISED), _dequantised(constants, node.inputs[1])
        elif node.op == "MatMul" and node.inputs[1].endswith(DEQUANTISED):
            module = path.removesuffix(".MatMul").replace("self_attn.dense", "self_attn.o_proj")
            yield f"{module}.weight", _dequantised(constants, node.inputs[1]).T
        elif path in ("groupnorm.Mul", "groupnorm.Add"):
            (value,) = (constants[i] for i in node.inputs if i in constants)
            yield f"groupnorm.{'weight' if node.op == 'Mul' else 'bias'}", value.reshape(-1)


def _dequantised(constants: dict[str, np.ndarray], name: str) -> np.ndarray:
    base = name.removesuffix(DEQUANTISED)
    scale, zero = (constants[f"{base}_{part}"].item() for part in ("scale", "zero_point"))
    return constants[f"{base}_quantized"].astype(np.float32) * np.float32(scale) + np.float32(zero)


def _config(weights: dict[str, torch.Tensor]) -> MoonshineConfig:
    layers = 1 + max(int(k.split(".")[1]) for k in weights if k.startswith("layers."))
    inner, width = weights["layers.0.mlp.fc1.weight"].shape
    return MoonshineConfig(
        hidden_size=width,
        intermediate_size=inner,
        encoder_num_hidden_layers=layers,
        decoder_num_hidden_layers=layers,
        encoder_num_attention_heads=HEADS,
        decoder_num_attention_heads=HEADS,
        rope_parameters=ROTARY,
    )
