"""Audio as programs have it, in blocks at 16 kHz: a file, its bytes, an open file, or samples."""

# N, M samples

import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pam.data.audio import load_audio, stream_audio
from pam.errors import PamError
from pam.rate import SAMPLE_RATE

# A mapping is a row of Hugging Face datasets: "array" or "raw" with "sampling_rate", or "bytes" or
# "path".
Audio = str | Path | bytes | BinaryIO | np.ndarray | Tensor | Mapping[str, Any]
KINDS = "a path, bytes, an open file, or samples with their rate"
BLOCK = 1 << 20  # bytes
LEAST_RATE, MOST_RATE = 1_000, 1_000_000  # of samples, a second


def name_of(audio: Audio) -> str:
    """What messages call it: a file's path, or the kind of the input."""
    audio = _unpacked(audio, SAMPLE_RATE)[0]
    if isinstance(audio, str | Path):
        return str(audio)
    if isinstance(audio, bytes | bytearray):
        return "audio bytes"
    if hasattr(audio, "read"):
        own = getattr(audio, "name", None)
        return own if isinstance(own, str) else "audio file"
    return "audio array" if isinstance(audio, np.ndarray | Tensor) else "audio"


def stream_input(audio: Audio, sample_rate: int = SAMPLE_RATE) -> Iterator[Float[np.ndarray, " N"]]:
    """Blocks of mono float32 samples at 16 kHz; a file is never in memory as a whole.

    `sample_rate` is that of samples. `PamError` for audio that cannot be used.
    """
    found, rate = _unpacked(audio, sample_rate)
    if isinstance(found, str | Path):
        yield from stream_audio(found)
    elif isinstance(found, bytes | bytearray) or hasattr(found, "read"):
        yield from _stream_copy(found)
    else:
        yield as_clip(found, rate)


def load_input(audio: Audio, sample_rate: int = SAMPLE_RATE) -> Float[np.ndarray, " N"]:
    """As `stream_input`, in one array."""
    if isinstance(audio, str | Path):
        return load_audio(audio)
    return np.concatenate(list(stream_input(audio, sample_rate)))


def as_clip(
    audio: Float[np.ndarray, " N"] | Float[Tensor, " N"], sample_rate: int = SAMPLE_RATE
) -> Float[np.ndarray, " M"]:
    """Mono samples in ±1 as float32 at 16 kHz. `PamError` for other arrays."""
    if not isinstance(audio, np.ndarray | Tensor):
        raise PamError(f"audio of type {type(audio).__name__}: give {KINDS}")
    samples = audio.detach().cpu().numpy() if isinstance(audio, Tensor) else audio
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise PamError(
            f"audio array of shape {samples.shape} and type {samples.dtype}: "
            "give mono floating-point samples, one dimension"
        )
    if not samples.size or not np.isfinite(samples).all():
        raise PamError("audio array: empty, or has NaN or infinite samples")
    if not isinstance(sample_rate, Real) or not LEAST_RATE <= sample_rate <= MOST_RATE:
        raise PamError(
            f"sample rate {sample_rate!r}: expected samples a second, {LEAST_RATE} to {MOST_RATE}"
        )
    if sample_rate != SAMPLE_RATE:
        import soxr

        samples = soxr.resample(samples, sample_rate, SAMPLE_RATE)
    return samples.astype(np.float32, copy=False)


def _unpacked(audio: Audio, sample_rate: int) -> tuple[Any, int]:
    """The audio inside a mapping, and its rate."""
    if not isinstance(audio, Mapping):
        return audio, sample_rate
    given = audio.get("sampling_rate")
    rate = sample_rate if given is None else given
    found = [audio[k] for k in ("array", "raw", "bytes", "path") if audio.get(k) is not None]
    if not found:
        raise PamError(f"audio with the keys {', '.join(map(str, audio))}: give {KINDS}")
    return (np.asarray(found[0]) if isinstance(found[0], list) else found[0]), rate


def _stream_copy(audio: Any) -> Iterator[Float[np.ndarray, " N"]]:
    """The samples of a copy on the disk, because decoders seek and may read a file twice."""
    with tempfile.NamedTemporaryFile() as copy:
        if isinstance(audio, io.TextIOBase):
            raise PamError("audio file: it is open as text: open it with the mode 'rb'")
        if hasattr(audio, "read"):
            shutil.copyfileobj(audio, copy, BLOCK)
        else:
            copy.write(audio)
        copy.flush()
        try:
            yield from stream_audio(copy.name)
        except PamError as error:
            raise type(error)(str(error).replace(f"{copy.name}: ", "")) from error
