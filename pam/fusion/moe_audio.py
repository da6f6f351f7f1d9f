r"""The mixture routed by the audio (equations 11 and 12, Table 11 "audio-based").

.. math::
    x = [f_{1,L}; \dots; f_{E,L}], \qquad p = \mathrm{softmax}(\mathrm{FFN}(x)), \qquad
    G_r = p_r \, \mathbb{1}[r = \arg\max p]

The experts are those of `pam.fusion.pam`; no prompt and no task label chooses them. So they
belong to no task, and there is no accuracy of routing. The gate is scaled by its probability, so
that the loss of the answer trains the router (as in the Switch Transformer that the paper cites).
"""

# B batch, U features, E encoders, D width of the LLM, R routed experts

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pam.encoders.padding import padding_mask
from pam.errors import PamError
from pam.fusion.pam import PromptAwareMixture
from pam.fusion.router import Router

LEVELS = ("frame", "utterance")


class AudioRoutedMixture(PromptAwareMixture):
    """PaM's experts with a router that reads the audio features.

    Args:
        dims, states, width, num_experts, num_fused, rank, weights, shared, adapter: see
            `PromptAwareMixture`.
        level: every "frame" chooses its expert, as in the mixtures that A.8 cites ("the current
            layer input"), or the whole "utterance" does, by the mean of x over its frames.
    """

    has_own_router = True

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        num_fused: int = 3,
        rank: int = 0,
        weights: str = "free",
        shared: bool = True,
        level: str = "frame",
        adapter: Mapping[str, Any] | None = None,
    ):
        options = {"num_fused": num_fused, "rank": rank, "weights": weights, "shared": shared}
        super().__init__(dims, states, width, num_experts, adapter=adapter, **options)
        if level not in LEVELS:
            raise PamError(f"fusion_conf.level: {level!r} is not one of {', '.join(LEVELS)}")
        self.needs_gate = False  # its own router, in the fusion
        self.by_frame = level == "frame"
        self.router = Router(len(dims) * width, num_experts, gate="probability")

    def forward(
        self,
        states: Sequence[Float[Tensor, "B _ _ _"]],
        lengths: Int[Tensor, " B"],
        gate: Tensor | None = None,
    ) -> Float[Tensor, "B U D"]:
        inner, last = self.features(states)
        x_BUF = torch.cat(last, dim=-1)
        real_BU1 = padding_mask(self.output_lengths(lengths), x_BUF.shape[1])[..., None]
        if not self.by_frame:
            mean_BF = x_BUF.masked_fill(~real_BU1, 0.0).sum(1) / real_BU1.sum(1)
            return self.fuse(inner, last, self.choose(mean_BF))
        # To the mixture every frame is a row of one frame; padding chooses no expert.
        gate_BUR = self.choose(x_BUF.flatten(0, 1)).unflatten(0, x_BUF.shape[:2]) * real_BU1
        inner = [x.transpose(1, 2).flatten(0, 1)[:, :, None] for x in inner]
        last = [x.flatten(0, 1)[:, None] for x in last]
        return self.fuse(inner, last, gate_BUR.flatten(0, 1)).view(*x_BUF.shape[:2], -1)

    def choose(self, x: Float[Tensor, "rows F"]) -> Float[Tensor, "rows R"]:
        """G of each row."""
        return self.router.gate(self.router(x))
