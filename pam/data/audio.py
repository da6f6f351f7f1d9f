"""Audio files in and out: everything becomes mono float32 at 16 kHz, and bad files say why."""

import io
import struct
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from pam.atomic import atomic_path
from pam.data.disk import writing
from pam.errors import UserError

SAMPLE_RATE = 16000
BLOCK_SAMPLES = 1 << 20  # read in blocks: a header may promise any number of samples
MAX_OVERSHOOT_SECONDS = 0.5  # segment ends are rounded; further than this they are wrong
UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # what a streamed WAV writes where its size belongs


def load_audio(
    path: str | Path, start: float | None = None, end: float | None = None
) -> Float[np.ndarray, " N"]:
    """Read a file, or its part from `start` to `end` in seconds, as mono at 16 kHz.

    Channels are averaged. `UserError` in one line for a file that is missing, truncated, corrupt,
    empty, or holds NaN or infinite samples.
    """
    with _open(path) as file:
        rate = file.samplerate
        samples = _read(file, path, start, end).mean(axis=1)
    _check(path, samples)
    if rate != SAMPLE_RATE:
        import soxr

        samples = soxr.resample(samples, rate, SAMPLE_RATE).astype(np.float32, copy=False)
        _check(path, samples)
    return samples


def num_samples(path: str | Path) -> int:
    """How many samples `load_audio` will give for the whole file, from its header alone."""
    with _open(path) as file:
        return round(file.frames * SAMPLE_RATE / file.samplerate)


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


def _read(
    file: soundfile.SoundFile, path: str | Path, start: float | None, end: float | None
) -> Float[np.ndarray, "N C"]:
    promised = _promised_frames(file, path)
    first = round((start or 0.0) * file.samplerate)
    last = promised if end is None else round(end * file.samplerate)
    if first < 0 or last < first or last > promised + MAX_OVERSHOOT_SECONDS * file.samplerate:
        seconds = promised / file.samplerate
        raise UserError(
            f"{path}: segment {start} to {end} s does not lie in the {seconds:.2f} s of the file: "
            "correct its line in segments"
        )
    last = min(last, promised)
    blocks = [np.zeros((0, file.channels), np.float32)]
    missing = last - first
    try:
        if first:
            file.seek(min(first, file.frames))
        while missing > 0:
            blocks.append(file.read(min(missing, BLOCK_SAMPLES), "float32", always_2d=True))
            missing -= len(blocks[-1])
            if not len(blocks[-1]):
                break
    except soundfile.LibsndfileError as error:
        raise _unreadable(path, error.error_string) from error
    if missing > 0 and last < 1 << 48:
        raise _unreadable(path, f"ends {missing} samples before the {last} its header promises")
    return np.concatenate(blocks)


def _promised_frames(file: soundfile.SoundFile, path: str | Path) -> int:
    """Samples by the header. libsndfile quietly shortens a truncated WAV, so look ourselves."""
    if file.format not in ("WAV", "WAVEX"):
        return file.frames
    size = _wav_data_bytes(Path(path))
    found = Path(path).stat().st_size
    if size is not None and size > found:
        raise _unreadable(path, f"its header promises {size} bytes of samples, it has {found}")
    return file.frames


def _wav_data_bytes(path: Path) -> int | None:
    """End of the data chunk in bytes from the start of the file; None where it is not stated."""
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"data":
                return None if size in UNKNOWN_SIZES else file.tell() + size
            file.seek(size + size % 2, io.SEEK_CUR)
    return None


def _unreadable(path: str | Path, reason: str) -> UserError:
    reason = " ".join(reason.split()).rstrip(".")
    return UserError(f"{path}: truncated or corrupt audio ({reason}): fetch or convert it again")


def _check(path: str | Path, samples: Float[np.ndarray, " N"]) -> None:
    if not len(samples):
        raise UserError(f"{path}: 0 samples: remove the utterance")
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: NaN or infinite samples: convert the file again or remove it")
