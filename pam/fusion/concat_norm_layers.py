r"""Concatenation of all layers with LayerNorm, after SALMONN-2 (beyond the paper).

.. math::
    x = A [\mathrm{LN}(h_{1,0}); \dots; \mathrm{LN}(h_{E,L})], \qquad S = \mathrm{MLP}(x)

Every layer has its own columns of A, where a weighted sum has one scalar for each layer. SALMONN-2
has one encoder; here there may be several. LayerNorm has no weights of its own: A contains them.
A has no bias, so frames of zeros stay zero. The MLP's first bias takes its place.
"""

# B batch, S hidden states of one encoder, T frames, C width of one encoder, U features,
# D width of the LLM, X values of all layers of one encoder

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.fusion.adapter import stack_frames
from pam.fusion.base import Fusion
from pam.fusion.layers import output_mlp


class ConcatNormLayers(Fusion):
    """All layers of all encoders through LayerNorm, one linear layer and an MLP.

    Args:
        dims, states, width: widths and hidden states of the encoders, and width of the LLM.
        num_experts: not used.
        stack: number of frames that are joined before the MLP.
        expansion: hidden units of the MLP, in multiples of D.
    """

    uses_all_layers = True

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        stack: int = 1,
        expansion: float = 1.0,
    ):
        super().__init__()
        inputs = sum(dim * count for dim, count in zip(dims, states, strict=True))
        self.stack = stack
        self.linear = nn.Linear(inputs, width, bias=False)
        self.mlp = output_mlp(stack * width, width, expansion)

    def forward(
        self,
        states: Sequence[Float[Tensor, "B _ T _"]],
        lengths: Int[Tensor, " B"],
        gate: Tensor | None = None,
    ) -> Float[Tensor, "B U D"]:
        normed_BTX = [
            F.layer_norm(state_BSTC, state_BSTC.shape[-1:]).transpose(1, 2).flatten(2)
            for state_BSTC in states
        ]
        x_BTD = self.linear(torch.cat(normed_BTX, dim=-1))
        return self.mlp(stack_frames(x_BTD, self.stack))
