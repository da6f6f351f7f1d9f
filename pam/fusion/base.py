"""What every fusion is: encoder states in, so many features of the LLM's width out."""

# B batch, T frames of the encoders, U features after fusion, R routed experts, D width of the LLM

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.encoders.pooling import Pooling
from pam.errors import UserError


class Fusion(nn.Module):
    """The contract of `pam.fusion`; `needs_gate`: a prompt router must choose the experts."""

    needs_gate = False

    def refuse_native_frames(self) -> None:
        """UserError where states must be at 25 Hz (`pool: after` gives them at the encoders' own
        rates)."""
        raise UserError(
            f"pool: after: {type(self).__name__} has no FFN_e to average frames after: leave it out"
        )

    def output_lengths(self, lengths: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Real features that clips of `lengths` frames become, at least one each."""
        raise NotImplementedError

    def forward(
        self,
        states: Sequence[Float[Tensor, "B _ _ _"]],
        lengths: Int[Tensor, " B"],
        gate: Float[Tensor, "B R"] | None = None,
        pooling: Sequence[Pooling] | None = None,
    ) -> Float[Tensor, "B U D"]:
        """U = output_lengths(T); features beyond a clip's own are arbitrary, but finite."""
        raise NotImplementedError
