"""What a fusion does to a frame, found by running it once on silence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pam.errors import PamError
from pam.fusion.probe import run_once
from pam.model.architecture import count
from pam.model.sizes import mixture_on_meta
from pam.train.memory import GIB, available

BYTES = 4  # of a float32
PROBE_FRAMES = (24, 72)  # multiples of all stack sizes, strides and windows of fusions


@dataclass(frozen=True)
class Fused:
    """What the fusion does to a frame: features, bytes that it keeps, FLOPs.

    `flops` are those of a forward pass, `backward` those of a backward pass.
    """

    features: float
    kept: float
    flops: float
    backward: float


def uses_bf16(config: Mapping[str, Any]) -> bool:
    return (config.get("model_conf") or {}).get("bf16", True)


def probe_fusion(config: Mapping[str, Any], width: int) -> Fused:
    """Run the fusion on silence of two lengths; the difference gives the cost of a frame.

    PamError if its weights alone are more than the memory of this machine.
    """
    fusion, _ = mixture_on_meta(config, width)
    weights, free = BYTES * count(fusion), available()
    if weights > free:
        raise PamError(
            f"fusion_conf: {weights / GIB:.0f} GiB of weights: a plan runs the fusion once, and "
            f"{free / GIB:.0f} GiB are free here"
        )
    fusion = fusion.to_empty(device="cpu").train()  # values do not matter
    short, long = (run_fusion(fusion, config, frames) for frames in PROBE_FRAMES)
    step = PROBE_FRAMES[1] - PROBE_FRAMES[0]
    return Fused(*((after - before) / step for before, after in zip(short, long, strict=True)))


def run_fusion(fusion: nn.Module, config: Mapping[str, Any], frames: int) -> list[float]:
    """The values of `Fused` for one clip of `frames`.

    Operations are counted in float32: gradients in bfloat16 take minutes on a CPU without AVX-512.
    """
    states = [
        torch.zeros(1, spec["num_states"], frames, spec["dim"])
        for spec in config["encoders"].values()
    ]
    inputs = {state.untyped_storage().data_ptr() for state in states}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in inputs:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16(config))
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with autocast, hooks:
        run_once(fusion, states, len(config["tasks"]))
    with FlopCounterMode(display=False) as forward:
        features = run_once(fusion, states, len(config["tasks"]))
    with FlopCounterMode(display=False) as backward:
        features.sum().backward()
    counted = [counter.get_total_flops() for counter in (forward, backward)]
    return [features.shape[1], sum(kept.values()), *counted]
