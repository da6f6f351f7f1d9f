r"""Learned weights over the layers of every encoder, as of SUPERB (Yang et al., 2021).

.. math:: f_e = \sum_l \mathrm{softmax}(w_e)_l \, f_{e,l}

There is one scalar for each layer, the same for all frames, prompts and tasks. SUPERB sums hidden
states; here FFN_e comes before the sum, as in PaM (equation 5). So a baseline differs from PaM in
its weights only. Where FFN_e is linear, both orders are the same.
"""

# B batch, S hidden states of one encoder, T frames, K width inside FFN_e, U features, D width of
# the LLM

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pam.fusion.adapter import AdapterFusion


class LayerWeightedFusion(AdapterFusion):
    """A fusion that reads one feature f_e of each encoder. The weights start as the mean.

    Args:
        dims, states, width, num_experts, adapter: see `AdapterFusion`.
    """

    uses_all_layers = True

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        adapter: Mapping[str, Any] | None = None,
    ):
        super().__init__(dims, states, width, num_experts, adapter)
        self.layer_logits = nn.ParameterList([torch.zeros(count) for count in states])

    def features(self, states: Sequence[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B U D"]]:
        """f_e of every encoder: inner states of FFN_e are summed first and projected after."""
        summed_BUK = [
            torch.einsum("s,bsuk->buk", logits_S.softmax(0), inner_BSUK)
            for logits_S, inner_BSUK in zip(self.layer_logits, self.inner(states), strict=True)
        ]
        return [a.project(x) for a, x in zip(self.adapters, summed_BUK, strict=True)]


def output_mlp(inputs: int, width: int, expansion: float) -> nn.Module:
    """FFN_o of a baseline: one hidden layer of `expansion`·D units with GELU; 0: one linear layer.

    The hidden layer gives a baseline as many parameters as PaM uses for an answer.
    """
    if expansion == 0:
        return nn.Linear(inputs, width)
    hidden = round(expansion * width)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, width))
