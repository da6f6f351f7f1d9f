r"""Concatenation with learned layer weights: [f_1; …; f_E] → FFN_o (beyond the paper).

f_e is the weighted sum over all layers of encoder e (`pam.fusion.layers`). The paper's baseline of
concatenation reads the last layer only. This one reads all layers, as PaM does, but no prompt
chooses among them.
"""

# B batch, U features, D width of the LLM

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pam.fusion.layers import LayerWeightedFusion, output_mlp


class ConcatAllLayers(LayerWeightedFusion):
    """The weighted layers of all encoders, concatenated and projected to D.

    Args:
        dims, states, width, num_experts, adapter: see `AdapterFusion`.
        expansion: hidden units of FFN_o, in multiples of D; 0: FFN_o is one linear layer.
    """

    JOINS = "ffn_o"  # see pam.fusion.extend

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        expansion: float = 0.0,
        adapter: Mapping[str, Any] | None = None,
    ):
        super().__init__(dims, states, width, num_experts, adapter)
        self.ffn_o = output_mlp(len(dims) * width, width, expansion)

    def forward(
        self,
        states: Sequence[Float[Tensor, "B _ _ _"]],
        lengths: Int[Tensor, " B"],
        gate: Tensor | None = None,
    ) -> Float[Tensor, "B U D"]:
        return self.ffn_o(torch.cat(self.features(states), dim=-1))
