r"""Average (Table 1): the mean over encoders of f_{e,L}."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pam.fusion.adapter import AdapterFusion


class Average(AdapterFusion):
    """The last states of all encoders through their FFN_e, averaged."""

    def forward(
        self,
        states: Sequence[Float[Tensor, "B _ _ _"]],
        lengths: Int[Tensor, " B"],
        gate: Tensor | None = None,
    ) -> Float[Tensor, "B U D"]:
        return torch.stack(self.last_features(states)).mean(0)
