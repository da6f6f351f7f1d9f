r"""The prompt-aware mixture (equation 3): a shared expert and one routed expert per task.

.. math:: S = E_{\mathrm{shared}}(F) + \sum_r G_r(\mathrm{prompt}) \, E_r(F)

Only experts whose gate is not zero are computed. The shared expert or the routed experts can be
left out (Table 11).
"""

# B batch, T frames, D width of the LLM, R routed experts

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.errors import PamError
from pam.fusion.adapter import AdapterFusion
from pam.fusion.expert import Expert


class PromptAwareMixture(AdapterFusion):
    """Equations 2 to 6; the gate G comes from the router (`pam.fusion.router`).

    Args:
        dims, states, width, num_experts, adapter: see `AdapterFusion`.
        num_fused: M, fused features of an expert.
        rank: rank of FFN_o, 0 for a full linear layer (section 4.5 uses 64).
        weights: "free" or "softmax" layer weights.
        shared: have the shared expert (Table 11: "without shared" has none).
        routed: have the routed experts (Table 11: "with one expert" has none, and no router).
    """

    uses_all_layers = True

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
        routed: bool = True,
        adapter: Mapping[str, Any] | None = None,
    ):
        super().__init__(dims, states, width, num_experts, adapter)
        if not (shared or routed):
            raise PamError("fusion_conf: shared and routed are both off: there is no expert")
        self.needs_gate = routed
        options = {"num_fused": num_fused, "rank": rank, "weights": weights}
        self.shared = Expert(states, width, **options) if shared else None
        count = num_experts if routed else 0
        self.experts = nn.ModuleList([Expert(states, width, **options) for _ in range(count)])

    def forward(
        self,
        states: Sequence[Float[Tensor, "B _ _ _"]],
        lengths: Int[Tensor, " B"],
        gate: Float[Tensor, "B R"] | None = None,
    ) -> Float[Tensor, "B U D"]:
        return self.fuse(*self.features(states), gate)

    def features(
        self, states: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> tuple[list[Float[Tensor, "B _ U _"]], list[Float[Tensor, "B U D"]]]:
        """Of every encoder: the inner states of FFN_e, and f_{e,L}."""
        inner = self.inner(states)
        return inner, self.project_last(inner)

    def fuse(
        self,
        inner: Sequence[Float[Tensor, "B _ U _"]],
        last: Sequence[Float[Tensor, "B U D"]],
        gate: Float[Tensor, "B R"] | None,
    ) -> Float[Tensor, "B U D"]:
        """Equation 3: the shared expert on all rows, the routed ones on those that chose them."""
        if self.shared is None:
            out_BUD = torch.zeros_like(last[0])
        else:
            out_BUD = self.shared(self.adapters, inner, last)
        for index, expert in enumerate(self.experts):
            rows = gate[:, index].nonzero()[:, 0]
            if len(rows) == 0:
                continue
            routed = expert(self.adapters, [x[rows] for x in inner], [x[rows] for x in last])
            weighted = routed * gate[rows, index, None, None].to(routed.dtype)
            out_BUD = torch.index_add(out_BUD, 0, rows, weighted.to(out_BUD.dtype))
        return out_BUD
