r"""Concatenation (the paper's "WavLLM" row, 37 M): [f_{1,L}; …; f_{E,L}] → linear."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pam.fusion.adapter import build_adapters, last_features


class Concat(nn.Module):
    """The last states of all encoders through their FFN_e, concatenated and projected to D."""

    needs_gate = False

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        adapter: str = "mlp",
        norm: bool = False,
        stack: int = 1,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.stack = stack
        self.adapters = build_adapters(
            dims, width, kind=adapter, norm=norm, stack=stack, dropout=dropout
        )
        self.ffn_o = nn.Linear(len(dims) * width, width)

    def forward(
        self, states: Sequence[Float[Tensor, "B _ T _"]], gate: Tensor | None = None
    ) -> Float[Tensor, "B U D"]:
        return self.ffn_o(torch.cat(last_features(self.adapters, states), dim=-1))
