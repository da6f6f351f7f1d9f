r"""The prompt-aware mixture (equation 3): a shared expert and one routed expert per task.

.. math:: S = E_{\mathrm{shared}}(F) + \sum_r G_r(\mathrm{prompt}) \, E_r(F)

Only experts whose gate is not zero are computed.
"""

# B batch, T frames, D width of the LLM, R routed experts

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pam.fusion.adapter import Fusion
from pam.fusion.expert import Expert


class PromptAwareMixture(Fusion):
    """Equations 2 to 6; the gate G comes from the router (`pam.fusion.router`).

    Args:
        dims, states, width, num_experts, adapter: see `Fusion`.
        num_fused: M, fused features of an expert.
        rank: rank of FFN_o, 0 for a full linear layer (section 4.5 uses 64).
        weights: "free" or "softmax" layer weights.
    """

    needs_gate = True

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        num_fused: int = 3,
        rank: int = 0,
        weights: str = "free",
        adapter: Mapping[str, Any] | None = None,
    ):
        super().__init__(dims, states, width, num_experts, adapter)
        options = {"num_fused": num_fused, "rank": rank, "weights": weights}
        self.shared = Expert(states, width, **options)
        self.experts = nn.ModuleList([Expert(states, width, **options) for _ in range(num_experts)])

    def forward(
        self, states: Sequence[Float[Tensor, "B _ T _"]], gate: Float[Tensor, "B R"]
    ) -> Float[Tensor, "B U D"]:
        inner = [a.inner(s) for a, s in zip(self.adapters, states, strict=True)]
        last = [a.project(x[:, -1]) for a, x in zip(self.adapters, inner, strict=True)]
        out_BTD = self.shared(self.adapters, inner, last)
        for index, expert in enumerate(self.experts):
            rows = gate[:, index].nonzero()[:, 0]
            if len(rows) == 0:
                continue
            routed = expert(self.adapters, [x[rows] for x in inner], [x[rows] for x in last])
            weighted = routed * gate[rows, index, None, None].to(routed.dtype)
            out_BTD = torch.index_add(out_BTD, 0, rows, weighted.to(out_BTD.dtype))
        return out_BTD
