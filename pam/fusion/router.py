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

from pam.errors import PamError

GATES = ("indicator", "probability")


class Router(nn.Module):
    """FFN_router, one linear layer D → R (the paper's 29 M leave no room for more).

    Args:
        width: D.
        num_experts: R.
        gate: "indicator" (equation 9), or "probability", the indicator times its own probability,
            through which the router is trained without task labels.
        standardize: first shift and scale every feature of h_prompt by learned values.
            `standardize_by` initialises them with the training prompts' mean and standard
            deviation. Some features of an LLM's states are tens of times larger than others.
    """

    def __init__(
        self, width: int, num_experts: int, gate: str = "indicator", standardize: bool = False
    ):
        super().__init__()
        if gate not in GATES:
            raise PamError(f"router_conf.gate: {gate!r} is not one of {', '.join(GATES)}")
        self.scaled = gate == "probability"
        self.ffn = nn.Linear(width, num_experts)
        self.shift = nn.Parameter(torch.zeros(width)) if standardize else None
        self.scale = nn.Parameter(torch.ones(width)) if standardize else None

    @torch.no_grad()
    def standardize_by(self, prompts_ND: Float[Tensor, "N D"]) -> None:
        """Initialise shift and scale with the statistics of h_prompt of the training prompts."""
        self.shift.copy_(prompts_ND.mean(0))
        if len(prompts_ND) > 1:  # one prompt has no deviation: nothing is scaled
            self.scale.copy_(1 / prompts_ND.std(0).clamp(min=1e-3))

    def forward(self, prompt_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B R"]:
        """Logits of the task posteriors p, computed in the type of the weights (float32), so that
        autocast cannot decide between nearly equal experts."""
        with torch.autocast(prompt_BD.device.type, enabled=False):
            prompt_BD = prompt_BD.to(self.ffn.weight.dtype)
            if self.shift is not None:
                prompt_BD = (prompt_BD - self.shift) * self.scale
            return self.ffn(prompt_BD)

    def gate(
        self, logits_BR: Float[Tensor, "B R"], expert: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B R"]:
        """G: one expert per row, the most probable or, with `expert`, the given one."""
        chosen = logits_BR.argmax(-1) if expert is None else expert
        one_hot = F.one_hot(chosen, logits_BR.shape[-1]).to(logits_BR.dtype)
        return one_hot * logits_BR.softmax(-1) if self.scaled else one_hot
