"""Run any fusion once, with the arguments that its `forward` has."""

# B batch, D width of the LLM

import inspect
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def run_once(
    fusion: nn.Module,
    states: Sequence[Float[Tensor, "B _ _ _"]],
    experts: int,
) -> Float[Tensor, "B U D"]:
    """Features of clips without padding; row b is routed to expert b, of `experts`."""
    rows, frames = states[0].shape[0], states[0].shape[2]
    known = {
        "states": list(states),
        "lengths": torch.full((rows,), frames),
        "gate": torch.eye(experts)[:rows] if fusion.needs_gate else None,
    }
    names = inspect.signature(fusion.forward).parameters
    return fusion(**{name: value for name, value in known.items() if name in names})
