r"""Aligns the frames of any encoder to 25 a second.

Native frame j covers the samples [j h, (j+1) h), output frame t covers [t H, (t+1) H) with
H = 640. An output frame is the mean of the native frames that it overlaps, weighted by the
overlap. For h = 320 that is the mean of two frames; for h = 384 each output frame mixes two or
three; for h > 640 native frames repeat. Only real frames count: a window that reaches past the
last real frame is the mean of what is there. Frames beyond the clip's own end, where only a native
frame longer than 40 ms can reach, are dropped.

The paper does not say whether 40 ms frames are made before or after FFN_e. Here the encoders give
them, before FFN_e, and dumps hold them.
"""

# B batch, S states, J native frames, T frames at 25 Hz, D width, O native frames that an output
# frame overlaps at most

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pam.encoders.padding import padding_mask
from pam.rate import FRAMES_PER_SECOND, SAMPLE_RATE

FRAME_SAMPLES = SAMPLE_RATE // FRAMES_PER_SECOND  # 640


def pooled_length(native: int, hop_samples: int) -> int:
    """Number of frames at 25 Hz for `native` frames of `hop_samples` each: ceil(native · h / H)."""
    return -(-native * hop_samples // FRAME_SAMPLES)


def clip_length(native: int, hop_samples: int, samples: int) -> int:
    """The same for a clip of `samples`, whose frames end with the clip."""
    return min(pooled_length(native, hop_samples), pooled_length(samples, 1))


def pool_frames(
    states_BSJD: Float[Tensor, "B S J D"],
    lengths: Int[Tensor, " B"],
    hop_samples: int,
    samples: Int[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B S T D"], Bool[Tensor, "B T"]]:
    """Mean over the native frames each 25 Hz frame overlaps; frames past the end are zero.

    lengths: real native frames of each item; samples: its clip's length, where frames end too.
    What lies in the padding (NaN included) is ignored. Sums are in float32 at least.
    """
    ends = lengths * hop_samples
    if samples is not None:
        ends = torch.minimum(ends, samples)
    frames = -(-ends // FRAME_SAMPLES)
    native_OT, shares_OBT = overlaps(lengths, hop_samples, frames)
    real_BJ = padding_mask(lengths, states_BSJD.shape[2])
    states_BSJD = states_BSJD.masked_fill(~real_BJ[:, None, :, None], 0)
    pooled = sum(
        states_BSJD.index_select(2, native_T) * share_BT[:, None, :, None]
        for native_T, share_BT in zip(native_OT, shares_OBT, strict=True)
    )
    return pooled.to(states_BSJD.dtype), padding_mask(frames, pooled.shape[2])


def overlaps(
    lengths: Int[Tensor, " B"], hop_samples: int, frames: Int[Tensor, " B"]
) -> tuple[Int[Tensor, "O T"], Float[Tensor, "O B T"]]:
    """The native frames that each frame at 25 Hz overlaps, and their weights in it.

    lengths: real native frames of each clip; frames: at 25 Hz. The shares sum to 1 where t is a
    frame of the clip; they are 0 elsewhere and for native frames that are not real.
    """
    start_T = torch.arange(int(frames.max()), device=lengths.device) * FRAME_SAMPLES
    inside = hop_samples - math.gcd(hop_samples, FRAME_SAMPLES)  # furthest start in a frame
    most = -(-(inside + FRAME_SAMPLES) // hop_samples)
    native_OT = start_T // hop_samples + torch.arange(most, device=lengths.device)[:, None]
    begin_OT = torch.maximum(native_OT * hop_samples, start_T)
    end_OT = torch.minimum((native_OT + 1) * hop_samples, start_T + FRAME_SAMPLES)
    samples_OT = (end_OT - begin_OT).clamp(min=0)
    real_OBT = native_OT[:, None] < lengths[:, None]
    real_OBT = real_OBT & (start_T < frames[:, None] * FRAME_SAMPLES)
    samples_OBT = samples_OT[:, None] * real_OBT
    shares_OBT = samples_OBT / samples_OBT.sum(0).clamp(min=1)
    return native_OT.clamp(max=int(lengths.max()) - 1), shares_OBT
