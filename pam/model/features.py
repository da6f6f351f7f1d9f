"""From audio or dumped states to the fusion's input, and from its output to the LLM's input."""

# B batch, N samples, S hidden states of an encoder, T frames, C its width, U fused features,
# D width of the LLM

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.encoders.padding import padding_mask


@dataclass(frozen=True)
class EncoderShape:
    """The properties of an encoder that the fusion needs: name in the batch, D_e and L_e + 1."""

    name: str
    dim: int
    num_states: int


@torch.no_grad()
def encode(
    encoders: nn.ModuleDict, speech: Float[Tensor, "B N"], lengths: Int[Tensor, " B"]
) -> dict[str, Tensor]:
    """States of every encoder in the layout of a dump: NAME [B, T, S·C], NAME_lengths [B]."""
    out = {}
    for name, encoder in encoders.items():
        states_BSTC, mask_BT = encoder(speech, lengths)
        out[name] = states_BSTC.transpose(1, 2).flatten(2)
        out[f"{name}_lengths"] = mask_BT.sum(1)
    return out


def read_states(
    batch: Mapping[str, Tensor], shapes: Sequence[EncoderShape], bf16: bool
) -> tuple[list[Float[Tensor, "B _ _ _"]], Int[Tensor, " B"]]:
    """The states [B, S, T, C] of all encoders, with zeros as padding, and each clip's frames.

    The number of frames is the minimum over the encoders. `batch` is as `encode` makes it. Without
    `bf16` the fusion computes in float32 and takes nothing else; an encoder may be in bfloat16.
    """
    frames = torch.stack([batch[f"{shape.name}_lengths"] for shape in shapes]).amin(0)
    real_BT = padding_mask(frames, int(frames.max()))
    states = []
    for shape in shapes:
        flat_BTF = batch[shape.name][:, : real_BT.shape[1]]
        # Padding may hold any value, even NaN, and 0 · NaN would reach the gradients.
        flat_BTF = flat_BTF.masked_fill(~real_BT[..., None], 0.0)
        if not bf16:
            flat_BTF = flat_BTF.to(torch.promote_types(flat_BTF.dtype, torch.float32))
        states.append(flat_BTF.unflatten(-1, (shape.num_states, shape.dim)).transpose(1, 2))
    return states, frames


def scale(
    features: Float[Tensor, "B U D"], gain: Float[Tensor, ""] | None, norm: float
) -> Float[Tensor, "B U D"]:
    """Features of the norm `gain` · `norm`; unchanged without a gain."""
    return features if gain is None else F.normalize(features.float(), dim=-1) * (gain * norm)
