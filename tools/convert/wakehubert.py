"""WakeHuBERT's ONNX graph to a folder that pam.encoders.wakehubert loads."""

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper

from convert.weights import load_exactly
from pam.encoders.wakehubert import WakeHubertConfig, WakeHubertModel

# From the config.json beside the graph: "delay_ms": 100, at 50 frames a second.
DELAY_FRAMES = 5
ROOT = "/student/"


def convert(source: Path, folder: Path) -> None:
    """Write config and float32 weights into `folder`."""
    graph = onnx.load(str(source)).graph
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    convs = [n for n in graph.node if n.op_type == "Conv" and len(n.input) == 3]
    weights = _named_weights(tensors)
    for node in convs:
        # "/student/blocks.0/dw/Conv" is blocks.0.dw; the stem's one convolution is "stem/conv".
        name = node.name.removeprefix(ROOT).removesuffix("/Conv").replace("/", ".")
        name = "stem" if name == "stem.conv" else name
        weights[f"{name}.weight"], weights[f"{name}.bias"] = (tensors[i] for i in node.input[1:])
    weights = {k: v for k, v in weights.items() if not k.startswith("out.")}
    model = WakeHubertModel(_config(weights, convs)).eval()
    # BatchNorm counts its training steps; the graph does not carry the count and nothing reads it.
    load_exactly(model, weights, tied=["norm.num_batches_tracked"])
    model.save_pretrained(folder)


def _named_weights(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    named = {k: v for k, v in tensors.items() if k.startswith("student.")}
    return {
        k.removeprefix("student.").removeprefix("mel.")
        if k.startswith("student.mel.")
        else k.removeprefix("student."): v
        for k, v in named.items()
    }


def _config(weights: dict[str, torch.Tensor], convs: list[Any]) -> WakeHubertConfig:
    channels, num_mels, stem_kernel = weights["stem.weight"].shape
    depthwise = [n for n in convs if n.name.endswith("/dw/Conv")]
    return WakeHubertConfig(
        channels=channels,
        num_mels=num_mels,
        stem_kernel=stem_kernel,
        block_kernel=weights["blocks.0.dw.weight"].shape[2],
        dilations=[_attribute(node, "dilations")[0] for node in depthwise],
        delay_frames=DELAY_FRAMES,
    )


def _attribute(node: Any, name: str) -> Any:
    return next(onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name)
