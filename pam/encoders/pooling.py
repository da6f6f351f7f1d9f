r"""Aligns the frames of any encoder to 25 a second.

Native frame j covers the samples [j h, (j+1) h), output frame t covers [t H, (t+1) H) with
H = 640. An output frame is the mean of the native frames that it overlaps, weighted by the
overlap. For h = 320 that is the mean of two frames; for h = 384 each output frame mixes two or
three; for h > 640 native frames repeat. Only real frames count: a window that reaches past the
last real frame is the mean of what is there. Frames beyond the clip's own end, where only a native
frame longer than 40 ms can reach, are dropped.

The paper does not say whether 40 ms frames are made before or after FFN_e. Here it is before, and
there is no option: states are dumped at 25 Hz. For a linear FFN_e both are the same, for the mean
of affine maps is the map of the mean; for an MLP, or behind a LayerNorm, they are not.
"""

# B batch, S states, J native frames, T frames at 25 Hz, D width

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SAMPLE_RATE = 16000
FRAMES_PER_SECOND = 25
FRAME_SAMPLES = SAMPLE_RATE // FRAMES_PER_SECOND  # 640


def pooled_length(native: int, hop_samples: int) -> int:
    """Frames at 25 Hz that `native` frames of `hop_samples` each give: ceil(native · h / H)."""
    return -(-native * hop_samples // FRAME_SAMPLES)


def clip_length(native: int, hop_samples: int, samples: int) -> int:
    """The same for a clip of `samples`: its frames do not outlast it."""
    return min(pooled_length(native, hop_samples), pooled_length(samples, 1))


def overlap(native: int, pooled: int, hop_samples: int, device: torch.device) -> Tensor:
    """[T, J] overlap, in samples, of output frame t with native frame j."""
    start_J = torch.arange(native, device=device) * hop_samples
    start_T = torch.arange(pooled, device=device)[:, None] * FRAME_SAMPLES
    last = torch.minimum(start_J + hop_samples, start_T + FRAME_SAMPLES)
    return (last - torch.maximum(start_J, start_T)).clamp(min=0)


def pool_frames(
    states_BSJD: Float[Tensor, "B S J D"],
    lengths: Int[Tensor, "B"],
    hop_samples: int,
    samples: Int[Tensor, "B"] | None = None,
) -> tuple[Float[Tensor, "B S T D"], Bool[Tensor, "B T"]]:
    """Mean over the native frames each 25 Hz frame overlaps; frames past the end are zero.

    lengths: real native frames of each item; samples: its clip's length, where frames end too.
    What lies in the padding (NaN included) is ignored.
    """
    native, device = states_BSJD.shape[2], lengths.device
    ends_B = lengths * hop_samples
    if samples is not None:
        ends_B = torch.minimum(ends_B, samples)
    pooled = pooled_length(int(ends_B.max()), 1)
    real_BJ = torch.arange(native, device=device) < lengths[:, None]
    real_BT = torch.arange(pooled, device=device) * FRAME_SAMPLES < ends_B[:, None]
    states_BSJD = states_BSJD.masked_fill(~real_BJ[:, None, :, None], 0)
    both_BTJ = real_BT[:, :, None] & real_BJ[:, None]
    weight_BTJ = overlap(native, pooled, hop_samples, device) * both_BTJ
    total_BT1 = weight_BTJ.sum(dim=2, keepdim=True)
    mean_BTJ = (weight_BTJ / total_BT1.clamp(min=1)).to(torch.float32)
    out = torch.einsum("btj,bsjd->bstd", mean_BTJ, states_BSJD.float())
    return out.to(states_BSJD.dtype), real_BT
