r"""Average (Table 1): the mean over encoders of f_{e,L}."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pam.fusion.adapter import build_adapters, last_features


class Average(nn.Module):
    """The last states of all encoders through their FFN_e, averaged."""

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

    def forward(
        self, states: Sequence[Float[Tensor, "B _ T _"]], gate: Tensor | None = None
    ) -> Float[Tensor, "B U D"]:
        return torch.stack(last_features(self.adapters, states)).mean(0)
