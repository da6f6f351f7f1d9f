r"""Routing by the text prompt (equations 7 to 9).

.. math:: p = \mathrm{softmax}(\mathrm{FFN}_{\mathrm{router}}(h_{\mathrm{prompt}})), \qquad
          G_r = \mathbb{1}[r = \arg\max p]

h_prompt is the LLM's last-layer state at the last token of the prompt.
"""

# B batch, D width of the LLM, R routed experts

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.errors import UserError

GATES = ("indicator", "probability")


class Router(nn.Module):
    """FFN_router, one linear layer D → R (the paper's 29 M leave no room for more).

    Args:
        width: D.
        num_experts: R.
        gate: "indicator" (equation 9), or "probability", the indicator times its own
            probability, through which the router learns where no task label is given.
    """

    def __init__(self, width: int, num_experts: int, gate: str = "indicator"):
        super().__init__()
        if gate not in GATES:
            raise UserError(f"router_conf.gate: {gate!r} is not one of {', '.join(GATES)}")
        self.scaled = gate == "probability"
        self.ffn = nn.Linear(width, num_experts)

    def forward(self, prompt_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B R"]:
        """Logits of the task posteriors p; in the weights' own type (float32), so that no near tie
        depends on autocast."""
        with torch.autocast(prompt_BD.device.type, enabled=False):
            return self.ffn(prompt_BD.to(self.ffn.weight.dtype))

    def gate(
        self, logits_BR: Float[Tensor, "B R"], expert: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B R"]:
        """G: one expert per row, the most probable or, with `expert`, the given one."""
        chosen = logits_BR.argmax(-1) if expert is None else expert
        one_hot = F.one_hot(chosen, logits_BR.shape[-1]).to(logits_BR.dtype)
        return one_hot * logits_BR.softmax(-1) if self.scaled else one_hot
