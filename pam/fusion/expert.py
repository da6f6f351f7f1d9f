r"""One expert of the mixture (equations 4 to 6).

.. math::
    g_k = \sum_e \sum_l W_{k,(e,l)} f_{e,l}, \qquad
    E(F) = \mathrm{FFN}_o([f_{1,L}; \dots; f_{E,L}; g_1; \dots; g_M])
"""

# B batch, T frames, D width of the LLM, E encoders, S hidden states of all encoders,
# S_e hidden states of encoder e, M fused features, K width inside FFN_e

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pam.errors import PamError

WEIGHTS = ("free", "softmax")


def output_ffn(inputs: int, width: int, rank: int) -> nn.Module:
    """FFN_o: one linear layer, or a bottleneck of rank r (section 4.5: 64) where r > 0."""
    if rank == 0:
        return nn.Linear(inputs, width)
    return nn.Sequential(nn.Linear(inputs, rank), nn.Linear(rank, width))


def fused_features(
    adapters: nn.ModuleList,
    inner: Sequence[Float[Tensor, "B _ T _"]],
    weights: Sequence[Float[Tensor, "*#B M _"]],
) -> Float[Tensor, "B M T D"]:
    """g_1 … g_M (equation 5); `weights` are W's columns of each encoder, [M, S_e] or for each row.

    Inner states are summed, then the sums are projected.
    """
    fused_BMTD: Tensor | float = 0.0
    for adapter, inner_BSTK, weight_MS in zip(adapters, inner, weights, strict=True):
        summed_BMTK = torch.einsum("...ms,...stk->...mtk", weight_MS, inner_BSTK)
        fused_BMTD = fused_BMTD + adapter.project(summed_BMTK, weight_MS.sum(-1)[..., None, None])
    return fused_BMTD


class Expert(nn.Module):
    """Fuses the features of all layers of all encoders with its own weights W [M, S].

    Args:
        states: S_e, hidden states of each encoder.
        width: D.
        num_fused: M.
        rank: rank of FFN_o, 0 for a full linear layer.
        weights: "free" scalars, or "softmax" over all S states.
    """

    JOINS = "ffn_o"  # see pam.fusion.extend

    def __init__(
        self,
        states: Sequence[int],
        width: int,
        num_fused: int = 3,
        rank: int = 0,
        weights: str = "free",
    ):
        super().__init__()
        if weights not in WEIGHTS:
            raise PamError(f"fusion_conf.weights: {weights!r} is not one of {', '.join(WEIGHTS)}")
        total = sum(states)
        self.states, self.softmax = list(states), weights == "softmax"
        # Both start as the plain mean over all states.
        start = 0.0 if self.softmax else 1.0 / total
        self.weight = nn.Parameter(torch.full((num_fused, total), start))
        self.ffn_o = output_ffn((len(states) + num_fused) * width, width, rank)

    def layer_weights(self) -> Float[Tensor, "M S"]:
        """W as it is applied."""
        return self.weight.softmax(-1) if self.softmax else self.weight

    def forward(
        self,
        adapters: nn.ModuleList,
        inner: Sequence[Float[Tensor, "B _ T _"]],
        last: Sequence[Float[Tensor, "B T D"]],
    ) -> Float[Tensor, "B T D"]:
        """E(F) from the inner states of FFN_e and every f_{e,L}."""
        per_encoder = self.layer_weights().split(self.states, dim=1)
        fused_BMTD = fused_features(adapters, inner, per_encoder)
        return self.ffn_o(torch.cat([*last, *fused_BMTD.unbind(1)], dim=-1))
