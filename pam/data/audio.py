"""Read and write audio: everything becomes mono float32 at 16 kHz; errors name file and cause."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from pam.atomic import atomic_path
from pam.data.concat import is_concat, parse_concat
from pam.data.opening import open_audio
from pam.data.sound import FOREIGN as FOREIGN
from pam.data.sound import Audio, two_lengths
from pam.disk import writing
from pam.errors import PamError
from pam.log import get_logger
from pam.rate import LOUDEST, SAMPLE_RATE

MAX_OVERSHOOT_SECONDS = 0.5  # rounding can move a segment's end past the audio; more is an error
CANCELLED = 0.1  # channels cancel if their mean has less than this share of the loudest channel
logger = get_logger(__name__)
_logged: set[str] = set()


@dataclass(frozen=True)
class Reading:
    """Mono samples at 16 kHz, and notes for the user about their files."""

    samples: Float[np.ndarray, " N"]
    notes: tuple[str, ...]


def load_audio(
    path: str | Path, start: float | None = None, end: float | None = None
) -> Float[np.ndarray, " N"]:
    """Read a file, or its part from `start` to `end` in seconds, as mono at 16 kHz.

    Channels are averaged. `path` may be a concatenation (pam/data/concat.py); its pieces are
    joined. `PamError` for a file that is missing, truncated, corrupt or empty, has an unknown
    format, or has samples that are NaN, infinite or above `LOUDEST`. Repairs are logged once for
    each file.
    """
    reading = read_audio(path, start, end)
    _log(reading.notes)
    return reading.samples


def stream_audio(
    path: str | Path,
    start: float | None = None,
    end: float | None = None,
    log: Callable[[Sequence[str]], None] | None = None,
) -> Iterator[Float[np.ndarray, " N"]]:
    """The samples of `load_audio` in blocks of about a million, so that hours need little memory.

    A file with several channels is decoded twice, because channels that cancel each other show
    only at its end. `PamError` as of `load_audio`, while the blocks are read. `log` gets the notes
    of each file; None: they are logged once for each.
    """
    pieces = parse_concat(str(path)) if is_concat(path) else [(path, start, end)]
    for piece in pieces:
        yield from _stream(*piece, log or _log)


def _stream(
    path: str | Path,
    start: float | None,
    end: float | None,
    log: Callable[[Sequence[str]], None],
) -> Iterator[Float[np.ndarray, " N"]]:
    audio = open_audio(path)
    first, last = _bounds(audio, start, end)
    notes, channel, decoded = list(audio.notes), None, 0
    if audio.channels > 1 and (channel := _channel_to_use(audio, first, last)) is not None:
        notes.append(_cancelling(channel))
    resampler = None
    if audio.rate != SAMPLE_RATE:
        import soxr

        resampler = soxr.ResampleStream(audio.rate, SAMPLE_RATE, 1, dtype="float32")
    for block_NC in audio.blocks(first, last):
        decoded += len(block_NC)
        _check(path, block_NC)
        block = block_NC.mean(axis=1) if channel is None else block_NC[:, channel].copy()
        block = resampler.resample_chunk(block) if resampler else block
        if len(block):
            yield block
    if round(decoded * SAMPLE_RATE / audio.rate) < 1:
        _check(path, np.empty(0, np.float32))
    if resampler and len(block := resampler.resample_chunk(np.empty(0, np.float32), last=True)):
        yield block
    if decoded < last - first and not notes:
        notes.append(two_lengths(last - first, decoded, audio.rate))
    log([f"{path}: {note}" for note in notes])


def _channel_to_use(audio: Audio, first: int, last: int) -> int | None:
    """Index of the loudest channel if the channels cancel in their mean, else None."""
    powers_C, power = np.zeros(audio.channels), 0.0
    for block_NC in audio.blocks(first, last):
        powers_C += np.square(block_NC).sum(axis=0)
        power += float(np.square(block_NC.mean(axis=1)).sum())
    return _loudest_of_cancelling(powers_C, power)


def read_audio(path: str | Path, start: float | None = None, end: float | None = None) -> Reading:
    """As `load_audio`, but returns the notes instead of logging them."""
    if is_concat(path):
        if start is not None or end is not None:
            raise PamError(f"{path}: no segments of a concatenation: cut its pieces instead")
        readings = [read_audio(*piece) for piece in parse_concat(str(path))]
        notes = dict.fromkeys(note for reading in readings for note in reading.notes)
        return Reading(np.concatenate([reading.samples for reading in readings]), tuple(notes))
    audio = open_audio(path)
    first, last = _bounds(audio, start, end)
    blocks = list(audio.blocks(first, last)) or [np.empty((0, audio.channels), np.float32)]
    samples_NC = np.concatenate(blocks)
    notes = list(audio.notes)
    if len(samples_NC) < last - first and not notes:
        notes.append(two_lengths(last - first, len(samples_NC), audio.rate))
    _check(path, samples_NC)
    samples = samples_NC.mean(axis=1)
    powers_C, power = np.square(samples_NC).mean(axis=0), np.square(samples).mean()
    if audio.channels > 1 and (loudest := _loudest_of_cancelling(powers_C, power)) is not None:
        samples = np.ascontiguousarray(samples_NC[:, loudest])
        notes.append(_cancelling(loudest))
    if audio.rate != SAMPLE_RATE:
        samples = _resampled(samples, audio.rate)
        _check(path, samples)
    return Reading(samples, tuple(f"{path}: {note}" for note in notes))


def num_samples(path: str | Path) -> int:
    """Number of samples of `load_audio(path)`, from the file's headers."""
    audio = open_audio(path)
    return round(audio.samples * SAMPLE_RATE / audio.rate)


def stated_seconds(path: str | Path) -> float:
    """Length of the file from its headers. `PamError` if it cannot be read."""
    audio = open_audio(path)
    return audio.samples / audio.rate


def check_audio(path: str | Path) -> None:
    """Read a whole file in blocks. `PamError` if `load_audio` would raise it."""
    audio = open_audio(path)
    samples = 0
    for block_NC in audio.blocks(0, audio.samples):
        samples += len(block_NC)
        _check(path, block_NC)
    if round(samples * SAMPLE_RATE / audio.rate) < 1:
        _check(path, np.empty(0, np.float32))


def is_native(path: str | Path, formats: tuple[str, ...]) -> bool:
    """Whether a file is mono at 16 kHz, has one of `formats`, and libsndfile reads it unaided."""
    audio = open_audio(path)
    is_ours = (audio.rate, audio.channels) == (SAMPLE_RATE, 1) and audio.format in formats
    return is_ours and audio.is_plain


def write_flac(
    path: str | Path,
    samples: Float[np.ndarray, " N"],
    log: Callable[[Sequence[str]], None] | None = None,
) -> None:
    """Write mono 16 kHz samples as 16-bit FLAC, atomically; values outside ±1 are clipped.

    `PamError` for no samples, and for those that are NaN, infinite or above `LOUDEST`. `log` gets
    a note of the file if samples are clipped; None: it is logged once.
    """
    peak = _check(path, samples)
    integers = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    encoded = io.BytesIO()  # in memory: libsndfile does not report a full disk reliably
    soundfile.write(encoded, integers, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    with writing(path), atomic_path(path) as part:
        part.write_bytes(encoded.getvalue())
    if peak > 1:
        (log or _log)([f"{path}: its samples of up to {peak:g} were clipped to ±1"])


def write_channel(path: str | Path, source: str | Path, place: int) -> None:
    """Write channel `place` (from 0) of the file `source` as `write_flac` does."""
    audio = open_audio(source)
    if place >= audio.channels:
        raise PamError(f"{source}: no channel {place} (from 0): it has {audio.channels}")
    blocks = [block_NC[:, place].copy() for block_NC in audio.blocks(0, audio.samples)]
    samples = np.concatenate([*blocks, np.empty(0, np.float32)])
    _check(source, samples)
    if audio.rate != SAMPLE_RATE:
        samples = _resampled(samples, audio.rate)
    write_flac(path, samples)


def _resampled(samples: Float[np.ndarray, " N"], rate: int) -> Float[np.ndarray, " M"]:
    """Samples at `rate` as samples at 16 kHz."""
    import soxr

    return soxr.resample(samples, rate, SAMPLE_RATE).astype(np.float32, copy=False)


def _bounds(audio: Audio, start: float | None, end: float | None) -> tuple[int, int]:
    """First and last sample of a segment, at the file's rate."""
    available = audio.samples
    first = round((start or 0.0) * audio.rate)
    last = available if end is None else round(end * audio.rate)
    if not 0 <= first <= last <= available + MAX_OVERSHOOT_SECONDS * audio.rate:
        raise PamError(
            f"{audio.path}: segment {start} to {end} s lies outside the "
            f"{available / audio.rate:.2f} s of the file: correct its line in segments"
        )
    return min(first, available), min(last, available)


def _loudest_of_cancelling(powers_C: np.ndarray, power: float) -> int | None:
    """Index of the loudest channel if the channels cancel in their mean, else None.

    `powers_C` are the channels' powers, `power` is that of their mean.
    """
    cancel = power * len(powers_C) ** 2 < CANCELLED**2 * powers_C.max()
    return int(powers_C.argmax()) if cancel else None


def _cancelling(channel: int) -> str:
    return f"its channels cancel each other: only channel {channel + 1} is used"


def _log(notes: Sequence[str]) -> None:
    """Log each note once."""
    for note in notes:
        if note not in _logged:
            _logged.add(note)
            logger.warning("%s", note)


def _check(path: str | Path, samples: Float[np.ndarray, "N ..."]) -> float:
    """The largest magnitude of samples. `PamError` for none, and for those of no audio."""
    if not len(samples):
        raise PamError(f"{path}: 0 samples: remove the utterance")
    if not np.isfinite(samples).all():
        raise PamError(f"{path}: NaN or infinite samples: convert the file again or remove it")
    peak = max(float(samples.max()), -float(samples.min()))
    if peak > LOUDEST:
        raise PamError(
            f"{path}: samples of up to {peak:g}, which should be in ±1: divide those of 16-bit "
            "integers by 32768, and write the file again"
        )
    return peak
