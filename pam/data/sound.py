"""An audio file as pieces that libsndfile decodes; their lengths are known before decoding."""

import io
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from pam.data.shards import is_member, open_buffered
from pam.disk import reading
from pam.errors import PamError

BLOCK_SAMPLES = 1 << 20  # read in blocks, since a wrong header may state any number of samples
MPEG_PREROLL = 10 * 1152  # a frame may need bits of earlier frames
COUNTING_SAMPLES = 1 << 10
FOREIGN = (".m4a", ".mp4", ".aac", ".webm", ".wma")  # libsndfile has no decoder for them


class SoundFile(soundfile.SoundFile):
    """Reads until libsndfile has no more samples.

    The base class seeks after each block, which fails for FLAC and MP3 of unknown length.
    """

    def seekable(self) -> bool:
        return False

    def go_to(self, sample: int) -> None:
        """Continue at `sample`. Earlier frames are decoded first if the format needs them."""
        early = min(sample, MPEG_PREROLL) if self.format == "MP3" else 0
        if sample and super().seekable():
            self.seek(sample - early)
            sample = early
        while sample and (skipped := len(self.read(min(sample, BLOCK_SAMPLES), "float32"))):
            sample -= skipped


@dataclass(frozen=True)
class Piece:
    """`samples` samples of the file, or of `content`, which libsndfile reads in its place."""

    samples: int
    content: bytes | None = None


@dataclass(frozen=True)
class Audio:
    """A file whose headers have been read.

    The decoder may give up to `slack` samples less than expected. `notes` are messages for the
    user, which follow "PATH: ".
    """

    path: str
    format: str  # libsndfile's name
    rate: int
    channels: int
    pieces: tuple[Piece, ...] = ()
    slack: int = 0
    notes: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """All samples, at the file's rate."""
        return sum(piece.samples for piece in self.pieces)

    @property
    def is_plain(self) -> bool:
        """Whether libsndfile reads the whole original file."""
        return len(self.pieces) == 1 and self.pieces[0].content is None

    def blocks(self, first: int, last: int) -> Iterator[Float[np.ndarray, "N C"]]:
        """The samples from `first` to `last`. Up to `slack` of them may be missing.

        `PamError` if more than that cannot be decoded.
        """
        begin, decoded = 0, 0
        for piece in self.pieces:
            low, high = max(first - begin, 0), min(last - begin, piece.samples)
            begin += piece.samples
            if low < high:
                for block in self._decode(piece, low, high):
                    decoded += len(block)
                    yield block
        if last - first - decoded > self.slack:
            raise shorter(self.path, last - first, decoded, self.rate)

    def _decode(self, piece: Piece, low: int, high: int) -> Iterator[np.ndarray]:
        with sound_file(self.path, piece.content) as file:
            try:
                file.go_to(low)
                while low < high:
                    block = file.read(min(high - low, BLOCK_SAMPLES), "float32", always_2d=True)
                    if not len(block):
                        return
                    low += len(block)
                    yield block
            except soundfile.LibsndfileError as error:
                held = decodable(self.path, piece.content)
                reason = f"{error.error_string} after {held} of {piece.samples} samples"
                raise unreadable(self.path, reason) from error


def sound_file(path: str, content: bytes | None = None) -> SoundFile:
    """The file or member of a shard, or `content` in its place, opened by libsndfile."""
    if content is not None:
        source = io.BytesIO(content)
    else:  # as bytes, since a name may not be UTF-8
        source = open_buffered(path) if is_member(path) else os.fsencode(path)
    try:
        return SoundFile(source)
    except soundfile.LibsndfileError as error:
        if isinstance(source, bytes):  # libsndfile does not say why the system refused to open it
            with reading(path), Path(path).open("rb"):
                pass
        raise unreadable(path, error.error_string) from error


def decodable(path: str, content: bytes | None) -> int:
    """Number of samples that libsndfile reads before it fails or ends."""
    samples = 0
    with sound_file(path, content) as file:
        try:
            while count := len(file.read(COUNTING_SAMPLES, "float32", always_2d=True)):
                samples += count
        except soundfile.LibsndfileError:
            pass
    return samples


def unreadable(path: str, reason: str) -> PamError:
    """The error for a file that libsndfile cannot read, or that is incomplete."""
    name = Path(path)
    if name.suffix.lower() in FOREIGN:
        command = shlex.join(["ffmpeg", "-i", path, str(name.with_suffix(".flac"))])
        return PamError(
            f"{path}: {name.suffix[1:]} is not supported: convert it, for example with: {command}"
        )
    reason = " ".join(reason.split()).rstrip(".")
    return PamError(f"{path}: truncated or corrupt audio ({reason}): fetch or convert it again")


def shorter(path: str, promised: int, held: int, rate: int) -> PamError:
    """The error for a file that holds less than its header states."""
    return unreadable(path, two_lengths(promised, held, rate))


def longer(path: str, promised: int, held: int, rate: int) -> PamError:
    """The error for a file that holds more than its header states."""
    return PamError(
        f"{path}: {two_lengths(promised, held, rate)}: its header is wrong, or files were joined: "
        "convert it again"
    )


def two_lengths(promised: int, held: int, rate: int) -> str:
    """The two lengths of a message: stated by the header, and held by the file."""
    return (
        f"its header promises {promised} samples ({promised / rate:.2f} s), "
        f"it holds {held} ({held / rate:.2f} s)"
    )
