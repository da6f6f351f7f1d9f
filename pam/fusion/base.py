"""The base class of fusions, which turn encoder states into features of the LLM's width."""

# B batch, T frames of the encoders, U features after fusion, R routed experts, D width of the LLM

from collections.abc import Iterable, Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn


class Fusion(nn.Module):
    """The contract of `pam.fusion`.

    `needs_gate`: a prompt router must choose the experts. `has_own_router`: the fusion chooses its
    experts itself, so they belong to no task. `reads_prompt`: its gate is h_prompt itself; such a
    fusion has the layer that reads it in `router`. `uses_all_layers`: it reads more than the last
    hidden state of each encoder. `stack`: number of frames that become one feature; a fusion with
    another rule has `output_lengths` of its own.
    """

    needs_gate = False
    has_own_router = False
    reads_prompt = False
    uses_all_layers = False
    stack = 1

    def encoder_parts(self) -> Iterable[nn.Module]:
        """What the fusion has of each encoder alone, in their order; empty if it has nothing."""
        return ()

    def output_lengths(self, lengths: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Number of real features for clips of `lengths` frames, at least one each."""
        return (lengths // self.stack).clamp(min=1)

    def forward(
        self,
        states: Sequence[Float[Tensor, "B _ _ _"]],
        lengths: Int[Tensor, " B"],
        gate: Float[Tensor, "B R"] | Float[Tensor, "B D"] | None = None,
    ) -> Float[Tensor, "B U D"]:
        """U = output_lengths(T); features beyond a clip's own are arbitrary, but finite."""
        raise NotImplementedError
