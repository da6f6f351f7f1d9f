"""Batches of clips of different lengths in which no clip changes the others."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def padding_mask(
    lengths: Int[Tensor, " B"] | Sequence[int], longest: int, device: torch.device | None = None
) -> Bool[Tensor, "B J"]:
    """True if frame j of clip b is real; on `device`, by default that of `lengths`."""
    lengths = torch.as_tensor(lengths, device=device)
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def attention_bias(real_BJ: Bool[Tensor, "B J"], dtype: torch.dtype) -> Tensor | None:
    """[B, 1, 1, J] to add to attention scores, so that no frame attends to padding.

    None without padding, which lets attention take its faster path.
    """
    if bool(real_BJ.all()):
        return None
    return bias_of(real_BJ, dtype)


def bias_of(seen: Bool[Tensor, "B *J"], dtype: torch.dtype) -> Float[Tensor, "B 1 1 *J"]:
    """0 where something is seen, else the lowest number."""
    bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return bias.masked_fill(~seen, torch.finfo(dtype).min)[:, None, None]


def by_length(
    front_end: Callable[[Float[Tensor, "b n"]], Float[Tensor, "b j D"]],
    audio: Float[Tensor, "B N"],
    lengths: Int[Tensor, "B"],
) -> Float[Tensor, "B J D"]:
    """Run `front_end` on clips of exactly one length at a time; pad its frames with zeros.

    For front ends that normalise over time, in which padding would change every frame.
    """
    outs = {n: front_end(audio[lengths == n, :n]) for n in sorted(set(lengths.tolist()))}
    if len(outs) == 1:
        return next(iter(outs.values()))
    longest = max(out.shape[1] for out in outs.values())
    some = next(iter(outs.values()))
    frames = some.new_zeros(len(audio), longest, some.shape[2])
    for samples, out in outs.items():
        frames[lengths == samples, : out.shape[1]] = out
    return frames
