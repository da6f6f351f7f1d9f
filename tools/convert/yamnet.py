"""YAMNet's int8 graph (.tflite) to a folder in float32 that pam.encoders.yamnet loads.

The folder has the weights that the graph has. The graph besides rounds all that flows from layer to
layer to int8, which the folder does not. Measured with Google's runtime (ai-edge-litert 2.3.0) on
speech, noise, tones, clicks and a chirp: every layer, given what the graph's own layer hears, is
the graph's to one step of int8; from audio to the last states, cosines of the two are 0.998 to 1.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tflite import ActivationFunctionType, Padding

from convert.tflite_graph import CONVOLUTIONS, Node, read_tflite
from convert.weights import load_exactly
from pam.encoders.yamnet import YamnetConfig, YamnetModel
from pam.errors import PamError

# Axes in TensorFlow Lite: output, height, width, input; depthwise: 1, height, width, channel.
TO_TORCH = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2)}
OPTIONS = {
    "dilations": (1, 1),
    "padding": Padding.SAME,
    "activation": ActivationFunctionType.RELU6,
}


def convert(source: Path, folder: Path) -> None:
    """Write config and float32 weights into `folder`; the classes are left out."""
    constants, nodes = read_tflite(source)
    try:
        layers = _layers(nodes)
        weights = _weights(layers, constants)
    except ValueError as error:
        raise PamError(f"{source}: not YAMNet's graph: {error}") from error
    widths = [len(weights[f"{name}.bias"]) for name in layers if not name.endswith("depthwise")]
    strides = [layers[name].options["strides"][0] for name in layers if "pointwise" not in name]
    config = YamnetConfig(channels=widths, strides=strides)
    model = YamnetModel(config).eval()
    load_exactly(model, weights)
    model.save_pretrained(folder)


def _layers(nodes: list[Node]) -> dict[str, Node]:
    """The convolutions by our names: each hears the one before it, a mean hears the last."""
    chain = [node for node in nodes if node.op in (*CONVOLUTIONS, "MEAN")]
    blocks = max(len(chain) // 2 - 1, 1)
    expected = ["CONV_2D", *["DEPTHWISE_CONV_2D", "CONV_2D"] * blocks, "MEAN"]
    if [node.op for node in chain] != expected:
        raise ValueError("its convolutions and their mean do not alternate as MobileNet's do")
    for before, after in pairwise(chain):
        if after.inputs[:1] != before.outputs:
            raise ValueError(f"{after.op} hears tensors {after.inputs}, not {before.outputs}")
    parts = [f"blocks.{i}.{part}" for i in range(blocks) for part in ("depthwise", "pointwise")]
    layers = dict(zip(["stem", *parts], chain[:-1], strict=True))
    for name, node in layers.items():
        stride = 1 if name.endswith("pointwise") else node.options["strides"][0]
        if node.options != OPTIONS | {"strides": (stride, stride)}:
            raise ValueError(f"{name} has the options {node.options}")
    return layers


def _weights(layers: dict[str, Node], constants: dict[int, np.ndarray]) -> dict[str, torch.Tensor]:
    weights, width = {}, 1
    for name, node in layers.items():
        if len(node.inputs) != 3 or not constants.keys() >= set(node.inputs[1:]):
            raise ValueError(f"{name} lacks its weight or its bias")
        weight, bias = (constants[i] for i in node.inputs[1:])
        kernel = 1 if name.endswith("pointwise") else 3
        outputs = width if name.endswith("depthwise") else len(bias)
        first = 1 if name.endswith("depthwise") else outputs
        shapes = (first, kernel, kernel, width), (outputs,)
        if (weight.shape, bias.shape) != shapes:
            found = f"{weight.shape} and {bias.shape}"
            raise ValueError(f"weight and bias of {name} are {found}, expected {shapes}")
        weights[f"{name}.weight"] = torch.tensor(weight.transpose(TO_TORCH[node.op]))
        weights[f"{name}.bias"] = torch.tensor(bias)
        width = len(bias)
    return weights
