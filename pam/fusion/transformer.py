r"""A small Transformer over the encoders (beyond the paper).

.. math:: S_t = \frac{1}{E} \sum_e \mathrm{Transformer}(f_{1,t}, \dots, f_{E,t})_e

The tokens are the E features of one time step, each the weighted sum of its encoder's layers
(`pam.fusion.layers`). Self-attention weighs the encoders anew in every frame, by the audio.

The other choice is a Transformer over time that reads concatenated features. That is a further
layer of the LLM's kind. It would also add context over time, which PaM does not have, and a
difference to PaM would not tell which of the two helped. FFN_e has a bias for each encoder, so
tokens need no further sign of the encoder that they come from.
"""

# B batch, U features, E encoders, D width of the LLM

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.errors import PamError
from pam.fusion.layers import LayerWeightedFusion


class EncoderTransformer(LayerWeightedFusion):
    """PyTorch's Transformer encoder (LayerNorm first, GELU) over the encoders of each frame.

    Args:
        dims, states, width, num_experts, adapter: see `AdapterFusion`.
        layers, heads: of the Transformer, whose width is D.
        expansion: hidden units of its feed-forward layers, in multiples of D.
        dropout: probability, where PyTorch has it.
    """

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        layers: int = 1,
        heads: int = 8,
        expansion: float = 4.0,
        dropout: float = 0.1,
        adapter: Mapping[str, Any] | None = None,
    ):
        super().__init__(dims, states, width, num_experts, adapter)
        if width % heads:
            raise PamError(f"fusion_conf.heads: {heads} does not divide the LLM's width, {width}")
        layer = nn.TransformerEncoderLayer(
            width,
            heads,
            dim_feedforward=round(expansion * width),
            dropout=dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        norm = nn.LayerNorm(width)
        self.transformer = nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False)

    def forward(
        self,
        states: Sequence[Float[Tensor, "B _ _ _"]],
        lengths: Int[Tensor, " B"],
        gate: Tensor | None = None,
    ) -> Float[Tensor, "B U D"]:
        tokens_BUED = torch.stack(self.features(states), dim=2)
        read = self.transformer(tokens_BUED.flatten(0, 1))  # to PyTorch, every frame is a sequence
        return read.mean(1).unflatten(0, tokens_BUED.shape[:2])
