"""Audio files in and out: everything becomes mono float32 at 16 kHz, and bad files say why."""

import io
import shlex
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from pam.atomic import atomic_path
from pam.data.concat import is_concat, parse_concat
from pam.data.disk import writing
from pam.errors import UserError

SAMPLE_RATE = 16000
BLOCK_SAMPLES = 1 << 20  # read in blocks: a header may promise any number of samples
MAX_OVERSHOOT_SECONDS = 0.5  # segment ends are rounded; further than this they are wrong
MAX_OGG_PAGE = 27 + 255 + 255 * 255  # header, segment table, segments
ENDLESS = 1 << 48  # samples; more than any header that knows its length states
UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # what a streamed file writes where its size belongs
FOREIGN = (".m4a", ".mp4", ".aac", ".webm", ".wma")  # libsndfile has no decoder for them


@dataclass(frozen=True)
class Chunks:
    """A file of chunks: where the first begins, and the one whose name begins with `data`.

    `head` is a chunk's name and size, of which the size counts `counted` bytes; the next one begins
    at a multiple of `align`.
    """

    first: int
    head: str
    data: bytes
    counted: int = 0
    align: int = 2


RIFF = Chunks(12, "<4sI", b"data")
CHUNKS = {"WAV": RIFF, "WAVEX": RIFF, "RF64": RIFF, "AIFF": Chunks(12, ">4sI", b"SSND")}
CHUNKS["W64"] = Chunks(40, "<16sQ", b"data", counted=24, align=8)


def load_audio(
    path: str | Path, start: float | None = None, end: float | None = None
) -> Float[np.ndarray, " N"]:
    """Read a file, or its part from `start` to `end` in seconds, as mono at 16 kHz.

    Channels are averaged. `path` may be a concatenation (pam/data/concat.py): its pieces in a row.
    `UserError` in one line for a file that is missing, truncated, corrupt, empty, of a format that
    is not read, or holds NaN or infinite samples.
    """
    if is_concat(path):
        if start is not None or end is not None:
            raise UserError(f"{path}: no segments of a concatenation: cut its pieces instead")
        return np.concatenate([load_audio(*piece) for piece in parse_concat(str(path))])
    with _open(path) as file:
        rate = file.samplerate
        samples = np.concatenate(list(_blocks(file, path, start, end))).mean(axis=1)
    _check(path, samples)
    if rate != SAMPLE_RATE:
        import soxr

        samples = soxr.resample(samples, rate, SAMPLE_RATE).astype(np.float32, copy=False)
        _check(path, samples)
    return samples


def num_samples(path: str | Path) -> int:
    """How many samples `load_audio` gives for the whole file, by its header (for MP3 a guess)."""
    with _open(path) as file:
        return round(file.frames * SAMPLE_RATE / file.samplerate)


def stated_seconds(path: str | Path) -> float | None:
    """How long the file is by its header, None where that does not say. Raises UserError."""
    with _open(path) as file:
        samples = _stated_samples(file, Path(path))
        return None if samples is None else samples / file.samplerate


def check_audio(path: str | Path) -> None:
    """Read all of a file, a block at a time; `UserError` for what `load_audio` would refuse."""
    with _open(path) as file:
        samples = 0
        for block in _blocks(file, path, None, None):
            samples += len(block)
            if len(block):
                _check(path, block)
    if round(samples * SAMPLE_RATE / file.samplerate) < 1:
        _check(path, np.empty(0, np.float32))


def write_flac(path: str | Path, samples: Float[np.ndarray, " N"]) -> None:
    """Write mono 16 kHz samples as 16-bit FLAC, atomically; louder than ±1 is clipped."""
    _check(path, samples)
    integers = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    encoded = io.BytesIO()  # in memory: libsndfile does not report a full disk reliably
    soundfile.write(encoded, integers, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    with writing(path), atomic_path(path) as part:
        part.write_bytes(encoded.getvalue())


def _open(path: str | Path) -> soundfile.SoundFile:
    if str(path).rstrip().endswith("|"):
        raise UserError(f"{path}: commands are not run: convert to an audio file and name that")
    if not Path(path).is_file():
        raise UserError(f"{path}: no such audio file: correct its line in wav.scp or remove it")
    try:
        return soundfile.SoundFile(str(path))
    except soundfile.LibsndfileError as error:
        raise _unreadable(path, error.error_string) from error


def _blocks(
    file: soundfile.SoundFile, path: str | Path, start: float | None, end: float | None
) -> Iterator[Float[np.ndarray, "N C"]]:
    """The samples from `start` to `end`, at least one block, which may be empty."""
    stated = _stated_samples(file, Path(path))
    available = ENDLESS if stated is None else stated
    first = round((start or 0.0) * file.samplerate)
    last = available if end is None else round(end * file.samplerate)
    if not 0 <= first <= last <= available + MAX_OVERSHOOT_SECONDS * file.samplerate:
        raise UserError(
            f"{path}: segment {start} to {end} s does not lie in the "
            f"{available / file.samplerate:.2f} s of the file: correct its line in segments"
        )
    lacking = max(0, min(last, available) - first)
    try:
        if first:
            file.seek(min(first, file.frames))
        while True:
            block = file.read(min(lacking, BLOCK_SAMPLES), "float32", always_2d=True)
            lacking -= len(block)
            yield block
            if not lacking or not len(block):
                break
    except soundfile.LibsndfileError as error:
        raise _unreadable(path, error.error_string) from error
    if stated is not None and lacking:
        raise _unreadable(path, f"ends {lacking} samples before the {stated} its header promises")


def _stated_samples(file: soundfile.SoundFile, path: Path) -> int | None:
    """Samples by the header, None where it does not say.

    libsndfile quietly shortens truncated files of chunks and Ogg, and guesses for MP3: look
    ourselves.
    """
    size = path.stat().st_size
    if file.format in CHUNKS:
        end = _data_end(path, CHUNKS[file.format])
        if end is not None and end > size:
            raise _unreadable(path, f"its header promises {end} bytes, it has {size}")
    if file.format == "OGG" and not _ends_with_ogg_page(path, size):
        raise _unreadable(path, "its last page is not complete")
    if file.format == "MP3" and not _mp3_states_length(path):
        return None
    return file.frames if file.frames < ENDLESS else None


def _data_end(path: Path, chunks: Chunks) -> int | None:
    """Where the samples end, bytes from the file's start; None where it does not say."""
    long = 0
    with path.open("rb") as file:
        file.seek(chunks.first)
        while len(head := file.read(struct.calcsize(chunks.head))) == struct.calcsize(chunks.head):
            name, size = struct.unpack(chunks.head, head)
            begin, size = file.tell(), max(size - chunks.counted, 0)
            if name == b"ds64":  # RF64 keeps here what does not fit the size of "data"
                long = int.from_bytes(file.read(16)[8:], "little")
            if name.startswith(chunks.data):
                return None if (long or size) in UNKNOWN_SIZES else begin + (long or size)
            file.seek(begin + size + -size % chunks.align)
    raise _unreadable(path, "it ends before its samples begin")


def _ends_with_ogg_page(path: Path, size: int) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, size - MAX_OGG_PAGE))
        tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    return len(page) > 26 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def _mp3_states_length(path: Path) -> bool:
    """Whether the first frame, after a tag with titles and pictures, holds a count of frames."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":  # its size is in four bytes of seven bits
            file.seek(
                sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)), 1
            )
        frame = file.read(200)
    return b"Xing" in frame or b"Info" in frame


def _unreadable(path: str | Path, reason: str) -> UserError:
    path = Path(path)
    if path.suffix.lower() in FOREIGN:
        command = shlex.join(["ffmpeg", "-i", str(path), str(path.with_suffix(".flac"))])
        return UserError(f"{path}: {path.suffix[1:]} is not read: convert it, as with: {command}")
    reason = " ".join(reason.split()).rstrip(".")
    return UserError(f"{path}: truncated or corrupt audio ({reason}): fetch or convert it again")


def _check(path: str | Path, samples: Float[np.ndarray, " N"]) -> None:
    if not len(samples):
        raise UserError(f"{path}: 0 samples: remove the utterance")
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: NaN or infinite samples: convert the file again or remove it")
