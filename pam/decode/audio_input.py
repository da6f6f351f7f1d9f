"""Audio as programs have it, in blocks at 16 kHz: a file, its bytes, an open file, or samples."""

# N, M samples

import io
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pam.data.audio import load_audio, stated_seconds, stream_audio
from pam.encoders.samples import mono_samples
from pam.errors import PamError
from pam.log import get_logger
from pam.rate import LEAST_RATE, MOST_RATE, SAMPLE_RATE


class AudioDecoder(Protocol):
    """What rows of Hugging Face datasets 4 have: ["array"] and ["sampling_rate"] decode it."""

    def __getitem__(self, key: str, /) -> Any: ...


# A mapping is a row of Hugging Face datasets, or the audio of one. Of these keys the first is used:
# a row of Common Voice has "path" beside "audio". "array" and "raw" have "sampling_rate" with them.
KEYS = ("audio", "array", "raw", "bytes", "path")
Audio = str | Path | bytes | BinaryIO | np.ndarray | Tensor | Mapping[str, Any] | AudioDecoder
KINDS = "a path, bytes, an open file, samples with their rate, or a row of datasets"
BLOCK = 1 << 20  # bytes
logger = get_logger(__name__)


class TooLongError(PamError):
    """Audio that is longer than asked for."""


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
        yield from stream_content(found)
    else:
        yield as_clip(*_decoded(found, rate))


def stream_content(
    audio: bytes | BinaryIO, most_seconds: float = math.inf
) -> Iterator[Float[np.ndarray, " N"]]:
    """As `stream_input`, of a file's content. `TooLongError`, before any of it is decoded, if it
    is longer than `most_seconds`: hours of silence are a few bytes."""
    with tempfile.NamedTemporaryFile() as copy:  # since decoders seek and may read a file twice
        _copy(audio, copy)
        try:
            if stated_seconds(copy.name) > most_seconds:  # what is decoded is never longer
                raise TooLongError(f"more than {most_seconds:g} s of audio")
            yield from stream_audio(copy.name, log=partial(_log, copy.name, name_of(audio)))
        except PamError as error:
            raise type(error)(str(error).replace(f"{copy.name}: ", "")) from error


def load_input(audio: Audio, sample_rate: int = SAMPLE_RATE) -> Float[np.ndarray, " N"]:
    """As `stream_input`, in one array."""
    if isinstance(audio, str | Path):
        return load_audio(audio)
    return np.concatenate(list(stream_input(audio, sample_rate)))


def as_clip(
    audio: Float[np.ndarray, " N"] | Float[Tensor, " N"], sample_rate: int = SAMPLE_RATE
) -> Float[np.ndarray, " M"]:
    """Mono samples in ±1 as float32 at 16 kHz. `PamError` for other arrays."""
    samples = mono_samples(audio, KINDS)
    if not isinstance(sample_rate, Real) or not LEAST_RATE <= sample_rate <= MOST_RATE:
        raise PamError(
            f"sample rate {sample_rate!r}: expected samples a second, {LEAST_RATE} to {MOST_RATE}"
        )
    if sample_rate != SAMPLE_RATE:
        import soxr

        count, samples = len(samples), soxr.resample(samples, sample_rate, SAMPLE_RATE)
        if not samples.size:
            raise PamError(f"audio array: {count} samples at {sample_rate} Hz: too short")
    return samples


def _unpacked(audio: Audio, sample_rate: int) -> tuple[Any, int]:
    """The audio inside a mapping, and its rate."""
    if not isinstance(audio, Mapping):
        return audio, sample_rate
    given = audio.get("sampling_rate")
    rate = sample_rate if given is None else given
    if "audio" in audio:
        if audio["audio"] is None:
            raise PamError("a row of datasets: its audio is None: leave the row out")
        return _unpacked(audio["audio"], rate)
    found = next((audio[key] for key in KEYS if audio.get(key) is not None), None)
    if found is None:
        raise PamError(
            f"audio with the keys {', '.join(map(str, audio))}: none of {', '.join(KEYS)} has a "
            f"value: give {KINDS}"
        )
    return (_as_array(found) if isinstance(found, list) else found), rate


def _as_array(samples: list[Any]) -> np.ndarray:
    try:
        return np.asarray(samples)
    except ValueError as error:
        raise PamError("audio array: a list of unlike parts: give mono samples") from error


def _decoded(audio: Any, sample_rate: int) -> tuple[Any, int]:
    """The samples of an `AudioDecoder`, and their rate; anything else as it is."""
    if isinstance(audio, np.ndarray | Tensor) or not hasattr(audio, "__getitem__"):
        return audio, sample_rate
    try:
        return audio["array"], audio["sampling_rate"]
    except (TypeError, LookupError):  # another object, such as a list
        return audio, sample_rate
    except (RuntimeError, ValueError, OSError) as error:  # of torchcodec
        reason = " ".join(str(error).split())
        raise PamError(
            f"audio of type {type(audio).__name__}: it cannot be decoded ({reason}): cast the "
            "column to Audio(decode=False), or leave the row out"
        ) from error


def _copy(audio: Any, copy: IO[bytes]) -> None:
    if isinstance(audio, io.TextIOBase):
        raise PamError("audio file: it is open as text: open it with the mode 'rb'")
    try:
        if hasattr(audio, "read"):
            shutil.copyfileobj(audio, copy, BLOCK)
        else:
            copy.write(audio)
    except (ValueError, TypeError) as error:
        raise PamError(f"audio file: {error}: open it with the mode 'rb'") from error
    copy.flush()


def _log(copy: str, name: str, notes: Sequence[str]) -> None:
    """Log notes about a copy by the name that its user knows."""
    for note in notes:
        logger.warning("%s", note.replace(copy, name, 1))
