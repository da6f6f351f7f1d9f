"""Samples as encoders take them: mono, in ±1, float32."""

# N samples

from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pam.errors import PamError
from pam.rate import LOUDEST


def mono_samples(audio: Any, kinds: str) -> Float[np.ndarray, " N"]:
    """An array or a tensor of mono samples in ±1, as float32.

    `PamError` for anything else; it names the `kinds` of audio that are possible.
    """
    if not isinstance(audio, np.ndarray | Tensor):
        raise PamError(f"audio of type {type(audio).__name__}: give {kinds}")
    if isinstance(audio, Tensor):  # numpy has no bfloat16
        audio = (audio.float() if audio.is_floating_point() else audio).detach().cpu().numpy()
    if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
        raise PamError(
            f"audio array of shape {audio.shape} and type {audio.dtype}: give mono floating-point "
            "samples, one dimension (average channels; divide 16-bit integers by 32768)"
        )
    with np.errstate(over="ignore"):  # infinite samples are refused below
        samples = np.ascontiguousarray(audio, dtype=np.float32)
    if not samples.size or not np.isfinite(samples).all():
        raise PamError("audio array: empty, or has NaN or infinite samples")
    if (peak := np.abs(samples).max()) > LOUDEST:
        raise PamError(
            f"audio array: samples of up to {peak:g}, which should be in ±1: divide those of "
            "16-bit integers by 32768"
        )
    return samples
