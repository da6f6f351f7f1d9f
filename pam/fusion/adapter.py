r"""From encoder states to features of the LLM's width (equation 2).

.. math:: f_{e,l} = \mathrm{FFN}_e(h_{e,l})

FFN_e is one per encoder, shared by its layers: A₂ GELU(A₁ h + b₁) + b₂, or one linear layer.
Its last affine map A₂ commutes with weighted sums over layers,
Σ w (A₂ u + b₂) = A₂ (Σ w u) + b₂ Σ w. So a mixture sums the many inner states u, and projects the
few sums.
"""

# B batch, S hidden states of one encoder, T frames at 25 Hz, U features, C width of one encoder,
# D width of the LLM, K width of the inner states

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pam.errors import PamError
from pam.fusion.base import Fusion
from pam.options import check_init_options

ADAPTERS = ("mlp", "linear")
LEAST_DEVIATION = 1e-3  # of a feature that hardly ever changes


def stack_frames(x: Float[Tensor, "*B T C"], stack: int) -> Float[Tensor, "*B U SC"]:
    """Join `stack` neighbouring frames into one of `stack`·C features; an odd tail is dropped.

    A clip of fewer frames is filled with zeros, so that every clip has at least one feature.
    """
    x = filled(x, stack)
    frames = x.shape[-2] // stack
    return x[..., : frames * stack, :].unflatten(-2, (frames, stack)).flatten(-2)


def filled(x: Float[Tensor, "*B T C"], stack: int) -> Float[Tensor, "*B U C"]:
    """At least `stack` frames; those that are missing are zeros."""
    return F.pad(x, (0, 0, 0, max(0, stack - x.shape[-2])))


class PreFusionAdapter(nn.Module):
    """FFN_e of one encoder, in two halves: `inner` (per state) and `project` (affine).

    Args:
        dim: width C of the encoder.
        width: width D of the LLM.
        kind: "mlp" (C → D → D with GELU) or "linear" (C → D).
        states: hidden states S_e of the encoder.
        norm: LayerNorm without parameters on every state first. Whisper's inner states are
            un-normalised residuals whose scale grows with depth.
        standardize: then shift and scale every feature of every state to mean 0 and variance 1 over
            training frames (`measure`). A few features of an encoder are far larger than the
            others, which slows the training of a linear layer down.
        stack: number of frames that are joined before FFN_e.
        dropout: probability, on the features that leave FFN_e.
    """

    MEASURED = ("shift", "scale")  # see pam.model.base

    def __init__(
        self,
        dim: int,
        width: int,
        states: int,
        kind: str = "mlp",
        norm: bool = False,
        standardize: bool = False,
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
        self.register_buffer("shift", torch.zeros(states, dim) if standardize else None)
        self.register_buffer("scale", torch.ones(states, dim) if standardize else None)

    @property
    def needs_measuring(self) -> bool:
        """Whether `measure` has yet to give the statistics that `standardize` asks for."""
        return self.scale is not None and bool((self.scale == 1).all())

    @torch.no_grad()
    def measure(self, frames: Iterable[Float[Tensor, "_ S C"]]) -> None:
        """Set shift and scale to the statistics of all states of these training frames."""
        count, total, squares = 0, 0.0, 0.0
        for frames_NSC in frames:
            normed_NSC = self.normed(frames_NSC.float()).double()
            count += len(normed_NSC)
            total = total + normed_NSC.sum(0)
            squares = squares + normed_NSC.square().sum(0)
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        self.shift.copy_(mean)
        self.scale.copy_(1 / deviation.clamp(min=LEAST_DEVIATION))

    def normed(self, states: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        return F.layer_norm(states, states.shape[-1:]) if self.norm else states

    def inner(self, states_BSTC: Float[Tensor, "B S T C"]) -> Float[Tensor, "B S U K"]:
        """The states before the last affine map: of all S_e states, or of the last S given."""
        inner = self.normed(filled(states_BSTC, self.stack))
        if self.scale is not None:
            own = slice(-states_BSTC.shape[1], None)
            shift, scale = self.shift[own, None], self.scale[own, None]
            inner = torch.addcmul(-shift * scale, inner, scale)
        inner = stack_frames(inner, self.stack)
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
        self.adapters = nn.ModuleList(
            PreFusionAdapter(dim, width, count, **options)
            for dim, count in zip(dims, states, strict=True)
        )
        self.stack = options.get("stack", 1)

    def encoder_parts(self) -> Iterable[nn.Module]:
        return self.adapters

    def inner(self, states: Sequence[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B _ U _"]]:
        """The inner states of FFN_e of every encoder."""
        return [a.inner(s) for a, s in zip(self.adapters, states, strict=True)]

    def last_features(
        self, states: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> list[Float[Tensor, "B U D"]]:
        """f_{e,L} of every encoder: the features of its last hidden state."""
        return self.project_last(self.inner([state[:, -1:] for state in states]))

    def project_last(
        self, inner: Sequence[Float[Tensor, "B _ U _"]]
    ) -> list[Float[Tensor, "B U D"]]:
        """f_{e,L} of every encoder from the inner states of FFN_e."""
        return [a.project(x[:, -1]) for a, x in zip(self.adapters, inner, strict=True)]
