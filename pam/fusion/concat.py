r"""Concatenation (the paper's "WavLLM" row, 37 M): [f_{1,L}; …; f_{E,L}] → linear."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.fusion.adapter import AdapterFusion


class Concat(AdapterFusion):
    """The last states of all encoders through their FFN_e, concatenated and projected to D."""

    JOINS = "ffn_o"  # see pam.fusion.extend

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        adapter: Mapping[str, Any] | None = None,
    ):
        super().__init__(dims, states, width, num_experts, adapter)
        self.ffn_o = nn.Linear(len(dims) * width, width)

    def forward(
        self,
        states: Sequence[Float[Tensor, "B _ _ _"]],
        lengths: Int[Tensor, " B"],
        gate: Tensor | None = None,
    ) -> Float[Tensor, "B U D"]:
        return self.ffn_o(torch.cat(self.last_features(states), dim=-1))
