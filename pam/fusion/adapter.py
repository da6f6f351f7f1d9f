r"""From encoder states to features of the LLM's width (equation 2).

.. math:: f_{e,l} = \mathrm{FFN}_e(h_{e,l})

FFN_e is one per encoder, shared by its layers: A₂ GELU(A₁ h + b₁) + b₂, or one linear layer.
Its last affine map A₂ commutes with weighted sums over layers,
Σ w (A₂ u + b₂) = A₂ (Σ w u) + b₂ Σ w, so a mixture sums the inner states u first and projects the
few sums (`project`).
"""

# B batch, S hidden states of one encoder, T frames at 25 Hz, U features, C width of one encoder,
# D width of the LLM, K width of the inner states

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.errors import PamError
from pam.fusion.base import Fusion
from pam.options import check_init_options

ADAPTERS = ("mlp", "linear")


def stack_frames(x: Float[Tensor, "*B T C"], stack: int) -> Float[Tensor, "*B U SC"]:
    """Join `stack` neighbouring frames into one of `stack`·C features; an odd tail is dropped.

    A clip of fewer frames is filled with zeros, so that every clip has at least one feature.
    """
    if x.shape[-2] < stack:
        x = F.pad(x, (0, 0, 0, stack - x.shape[-2]))
    frames = x.shape[-2] // stack
    return x[..., : frames * stack, :].unflatten(-2, (frames, stack)).flatten(-2)


class PreFusionAdapter(nn.Module):
    """FFN_e of one encoder, in two halves: `inner` (per state) and `project` (affine).

    Args:
        dim: width C of the encoder.
        width: width D of the LLM.
        kind: "mlp" (C → D → D with GELU) or "linear" (C → D).
        norm: LayerNorm without parameters on every state first. Whisper's inner states are
            un-normalised residuals whose scale grows with depth.
        stack: number of frames that are joined before FFN_e.
        dropout: probability, on the features that leave FFN_e.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        kind: str = "mlp",
        norm: bool = False,
        stack: int = 1,
        dropout: float = 0.0,
    ):
        super().__init__()
        if kind not in ADAPTERS:
            raise PamError(
                f"fusion_conf.adapter.kind: {kind!r} is not one of {', '.join(ADAPTERS)}"
            )
        self.norm, self.stack, self.dropout = norm, stack, dropout
        self.first = nn.Linear(dim * stack, width) if kind == "mlp" else None
        self.last = nn.Linear(width if kind == "mlp" else dim * stack, width)

    def inner(self, states_BSTC: Float[Tensor, "B S T C"]) -> Float[Tensor, "B S U K"]:
        """The states before the last affine map."""
        if self.norm:
            states_BSTC = F.layer_norm(states_BSTC, states_BSTC.shape[-1:])
        inner = stack_frames(states_BSTC, self.stack)
        return inner if self.first is None else F.gelu(self.first(inner))

    def project(
        self, inner: Float[Tensor, "*B T K"], weight_sum: Float[Tensor, "*#B 1 1"] | float = 1.0
    ) -> Float[Tensor, "*B T D"]:
        """The last affine map of (a weighted sum of) inner states; the bias counts Σ w times."""
        features = F.linear(inner, self.last.weight) + self.last.bias * weight_sum
        return F.dropout(features, self.dropout, self.training)

    def forward(self, states_BSTC: Float[Tensor, "B S T C"]) -> Float[Tensor, "B S U D"]:
        return self.project(self.inner(states_BSTC))


class AdapterFusion(Fusion):
    """A fusion with one FFN_e per encoder: one feature for every `stack` frames.

    Args:
        dims: width of each encoder.
        states: hidden states of each encoder, S_e.
        width: D, of the LLM.
        num_experts: R, one per task.
        adapter: options of `PreFusionAdapter`.
    """

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        adapter: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        options = dict(adapter or {})
        check_init_options(PreFusionAdapter, options, "fusion_conf.adapter")
        self.adapters = nn.ModuleList([PreFusionAdapter(dim, width, **options) for dim in dims])
        self.stack = options.get("stack", 1)

    def output_lengths(self, lengths: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        return (lengths // self.stack).clamp(min=1)

    def inner(self, states: Sequence[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B _ U _"]]:
        """The inner states of FFN_e of every encoder."""
        return [a.inner(s) for a, s in zip(self.adapters, states, strict=True)]

    def last_features(
        self, states: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> list[Float[Tensor, "B U D"]]:
        """f_{e,L} of every encoder: the features of its last hidden state."""
        inner = self.inner([state[:, -1:] for state in states])
        return [a.project(x[:, 0]) for a, x in zip(self.adapters, inner, strict=True)]
