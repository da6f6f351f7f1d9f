"""One encoder (Tables 1 and 13, single-encoder baselines): f_L → linear."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.errors import PamError
from pam.fusion.adapter import AdapterFusion


class Single(AdapterFusion):
    """The last state of the only encoder through FFN_e and a linear layer."""

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        adapter: Mapping[str, Any] | None = None,
    ):
        super().__init__(dims, states, width, num_experts, adapter)
        if len(dims) != 1:
            raise PamError(f"fusion 'single' takes one encoder, {len(dims)} are configured")
        self.ffn_o = nn.Linear(width, width)

    def forward(
        self,
        states: Sequence[Float[Tensor, "B _ _ _"]],
        lengths: Int[Tensor, " B"],
        gate: Tensor | None = None,
    ) -> Float[Tensor, "B U D"]:
        return self.ffn_o(self.last_features(states)[0])
