r"""A mixture whose layer weights are a continuous function of the prompt (beyond the paper).

.. math::
    W(\mathrm{prompt}) = \mathrm{softmax}_S(A\,h_{\mathrm{prompt}} + b), \qquad
    g_k = \sum_e \sum_l W_{k,(e,l)} f_{e,l}, \qquad
    S = \mathrm{FFN}_o([f_{1,L}; \dots; f_{E,L}; g_1; \dots; g_M])

As one expert of PaM (equations 5 and 6), with W computed from the prompt instead of chosen by a
task's label. There are no experts and no routing loss: the loss of the answer alone trains A and b.
h_prompt is standardised first, as PaM's router does with `standardize`.

The CTC warm-up reads no prompts. It uses W = softmax(b), the weights for the mean of the training
prompts, and trains b with the rest of the fusion.
"""

# B batch, U features, D width of the LLM, K width inside FFN_e, E encoders, S hidden states of all
# encoders, M fused features

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.fusion.adapter import AdapterFusion
from pam.fusion.expert import fused_features, output_ffn
from pam.fusion.router import Router

START = 0.1  # standard deviation of A h_prompt at the start: weights are near the mean


class PromptMixture(AdapterFusion):
    """Equations 5 and 6 with W(prompt); `gate` is h_prompt itself.

    Args:
        dims, states, width, num_experts, adapter: see `AdapterFusion`.
        num_fused: M, fused features.
        rank: rank of FFN_o, 0 for a full linear layer.
    """

    reads_prompt = True
    uses_all_layers = True

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        num_fused: int = 3,
        rank: int = 0,
        adapter: Mapping[str, Any] | None = None,
    ):
        super().__init__(dims, states, width, num_experts, adapter)
        self.states, self.num_fused = list(states), num_fused
        self.router = Router(width, num_fused * sum(states), standardize=True)
        nn.init.normal_(self.router.ffn.weight, std=START / width**0.5)
        nn.init.zeros_(self.router.ffn.bias)
        self.ffn_o = output_ffn((len(states) + num_fused) * width, width, rank)

    def layer_weights(self, prompt_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B M S"]:
        """W of each prompt."""
        return self.router(prompt_BD).unflatten(-1, (self.num_fused, -1)).softmax(-1)

    def forward(
        self,
        states: Sequence[Float[Tensor, "B _ _ _"]],
        lengths: Int[Tensor, " B"],
        gate: Float[Tensor, "B D"] | None = None,
    ) -> Float[Tensor, "B U D"]:
        """Without a prompt: the weights for the mean prompt, which `standardize` makes zero."""
        if gate is None:
            gate = self.router.shift.expand(len(lengths), -1)
        inner = self.inner(states)
        last = self.project_last(inner)
        per_encoder = self.layer_weights(gate).split(self.states, dim=-1)
        fused_BMUD = fused_features(self.adapters, inner, per_encoder)
        return self.ffn_o(torch.cat([*last, *fused_BMUD.unbind(1)], dim=-1))
