"""Open audio files, and check that libsndfile reads all of their samples.

libsndfile reads a truncated file without an error, and stops early if a header is wrong. So this
module finds out the number of samples without the decoder. If libsndfile does not read a file to
the end, it gets the file in another form: with corrected headers, or in pieces.
"""

import shlex
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path

from pam.data import containers, flac, mpeg, ogg
from pam.data.shards import file_of, is_member, open_member
from pam.data.sound import (
    Audio,
    Piece,
    SoundFile,
    decodable,
    longer,
    shorter,
    sound_file,
    two_lengths,
    unreadable,
)
from pam.data.tags import Bytes, junk_length, leading_tags
from pam.disk import reading
from pam.errors import PamError
from pam.rate import LEAST_RATE, MOST_RATE

HEADERLESS = (".raw", ".pcm", ".s16", ".sw")
BARE = (".gsm", ".vox")  # these never have a header; other files without one are damaged
EVEN_HEADERS = ("PAF", "IRCAM")  # of 2048 and 1024 bytes
MAX_JUNK = 4096  # unknown bytes after the audio that are accepted
# A compressed file may lack this share, up to this many seconds, or the codec's delay.
SMALL_SHARE, SMALL_SECONDS, DELAY_SECONDS = 0.005, 0.5, 0.1
SLACK_BYTES = 64  # a header's size may differ this much by rounding or padding
MAX_GAPLESS = 1 << 13  # samples that an MP3's header may ask to drop at its ends
BEGINNING = 16  # bytes of a header that include the rate; they do not occur in sound by chance
FILES_KEPT = 8  # cached, since the segments of one recording follow each other


def open_audio(path: str | Path) -> Audio:
    """Read a file's headers. `PamError` if it is missing, truncated or not audio; see `reading`."""
    path = str(path)
    if path.rstrip().endswith("|"):
        raise PamError(f"{path}: commands are not run: convert to an audio file and give its path")
    with reading(path):
        is_there = file_of(path).is_file()
    if not is_there:
        if "://" in path:
            raise PamError(f"{path}: nothing is downloaded: fetch the file and give its path")
        raise PamError(
            f"{path}: no such audio file: correct the path (in wav.scp, or as you gave it)"
        )
    with reading(path):
        state = file_of(path).stat()
        audio = _looked_at(path, state.st_size, state.st_mtime_ns)
    if not LEAST_RATE <= audio.rate <= MOST_RATE:  # a second of 1 Hz becomes 16,000 samples
        rates = f"expected {LEAST_RATE} to {MOST_RATE}"
        raise unreadable(path, f"its header says {audio.rate} samples a second, {rates}")
    return audio


@lru_cache(maxsize=FILES_KEPT)
def _looked_at(path: str, size: int, _time: int) -> Audio:
    with _content(path, size) as data:
        if not len(data):
            raise unreadable(path, "it is empty")
        begin = leading_tags(data)
        if data[begin : begin + 4] == b"fLaC":
            return _flac(path, data, begin)
        # For this suffix soundfile wants a rate, even if the header has one.
        content = bytes(data) if _suffix(path) == ".raw" else None
        try:
            opened = sound_file(path, content)
        except PamError as error:
            return _mended(path, data, error)
        with opened:
            return _audio(path, opened, data, content)


@contextmanager
def _content(path: str, size: int) -> Iterator[Bytes]:
    """The bytes of a file, mapped; those of a member of a shard, read."""
    if is_member(path):
        yield open_member(path).readall()
    elif not size:  # it cannot be mapped
        yield b""
    else:
        with (
            Path(path).open("rb") as file,
            closing(mmap(file.fileno(), 0, access=ACCESS_READ)) as data,
        ):
            yield data


def _suffix(path: str) -> str:
    return Path(path).suffix.lower()


def _mended(path: str, data: Bytes, error: PamError) -> Audio:
    """A file that libsndfile cannot read, opened with corrected sizes in its headers."""
    extent = containers.extent(data)
    if extent is None:
        raise _headerless(path) if _suffix(path) in HEADERLESS else error
    if extent.size is not None and extent.size > extent.present:
        promised = f"its header promises {extent.size} bytes of samples"
        raise unreadable(path, f"{promised}, it holds {extent.present}") from error
    content = containers.repaired(data)
    if content is None:
        raise error
    with sound_file(path, content) as opened:
        return _audio(path, opened, data, content)


def _headerless(path: str) -> PamError:
    form = ["-f", "s16le", "-ar", "16000", "-ac", "1"]
    command = shlex.join(["ffmpeg", *form, "-i", path, str(Path(path).with_suffix(".flac"))])
    return PamError(
        f"{path}: no header with rate and format: convert it, for example with: {command}"
    )


def _audio(path: str, opened: SoundFile, data: Bytes, content: bytes | None) -> Audio:
    if opened.format == "RAW" and (_suffix(path) not in BARE or data[:32].isascii()):
        raise unreadable(path, "it has no header")  # libsndfile guessed the format from the name
    audio = Audio(path, opened.format, opened.samplerate, opened.channels)
    if opened.format == "OGG":
        return _ogg(audio, opened, data)
    if opened.subtype.startswith("MPEG"):
        return _mpeg(audio, opened, data)
    if extent := containers.extent(data):
        return _sized(audio, opened, data, content, extent)
    if not opened.frames:
        raise unreadable(path, "it ends before its samples begin")
    return _counted(audio, opened, data, content)


def _sized(
    audio: Audio,
    opened: SoundFile,
    data: Bytes,
    content: bytes | None,
    extent: containers.Extent,
) -> Audio:
    """A file whose header states the bytes of its samples."""
    frames, width = opened.frames, containers.bytes_per_sample(opened)
    if not frames and extent.present and content is None:
        return _mended(audio.path, data, unreadable(audio.path, "libsndfile finds no samples"))
    if extent.size is None:  # the samples reach the end of the file
        return replace(audio, pieces=(Piece(frames, content),))

    def samples(size: int) -> int:
        return size // width if width else round(size * frames / max(extent.present, 1))

    promised = samples(extent.size) if width or extent.size > extent.present else frames
    held = min(frames, promised)
    slack = max(16, audio.rate // 1000 * width) if width else SLACK_BYTES
    if extent.size - extent.present > slack or promised - held > samples(slack):
        raise shorter(audio.path, promised, held, audio.rate)
    if extent.junk > MAX_JUNK:
        raise longer(audio.path, promised, held + samples(extent.junk), audio.rate)
    return replace(
        audio, pieces=(Piece(held, content),), notes=_short_note(promised, held, audio.rate)
    )


def _counted(audio: Audio, opened: SoundFile, data: Bytes, content: bytes | None) -> Audio:
    """A file whose header states the number of samples, or no length."""
    frames, promised = opened.frames, containers.stated_samples(opened, data)
    width = containers.bytes_per_sample(opened) or 1
    if promised is None:
        again = data.find(data[:BEGINNING], BEGINNING)
        if again >= 0 and audio.format != "RAW":  # the same header
            raise longer(audio.path, again // width, frames, audio.rate)
        is_odd = audio.format in EVEN_HEADERS and len(data) % width and opened.subtype != "PCM_24"
        if is_odd or "seems to be truncated" in opened.extra_info:
            raise unreadable(audio.path, "it ends in the middle of a sample")
        if audio.format == "HTK":  # libsndfile opens it only if its length is right
            return replace(audio, pieces=(Piece(frames, content),))
        note = f"{audio.format} states no length: truncation cannot be detected"
        return replace(audio, pieces=(Piece(frames, content),), notes=(note,))
    held = containers.held_samples(opened, data)
    if min(frames, held) < promised - audio.rate // 1000:
        raise shorter(audio.path, promised, min(frames, held), audio.rate)
    if held > promised + MAX_JUNK // width:
        raise longer(audio.path, promised, held, audio.rate)
    samples = min(promised, frames)
    notes = _short_note(promised, samples, audio.rate)
    return replace(audio, pieces=(Piece(samples, content),), notes=notes)


def _flac(path: str, data: Bytes, begin: int) -> Audio:
    """Each concatenated file is a piece. A wrong header is corrected from the last frame."""
    with sound_file(path) as opened:
        audio = Audio(path, opened.format, opened.samplerate, opened.channels)
    links = flac.links(data, begin)
    pieces, notes = [], ()
    for first, end in links:
        stated, counted = flac.stated(data[first : first + 42]), flac.counted(data, first, end)
        if len(links) == 1 and stated and counted in (stated, None):
            pieces.append(Piece(stated))
            continue
        if counted is None and not stated:
            counted = decodable(path, bytes(data[first:end]))
        samples = stated if counted is None else counted
        if samples < stated:
            raise shorter(path, stated, samples, audio.rate)
        if stated < samples and stated:
            notes = (f"{two_lengths(stated, samples, audio.rate)}, which are read",)
        content = flac.with_total(bytes(data[first:end]), samples)
        with sound_file(path, content) as part:
            _check_alike(audio, part)
        pieces.append(Piece(samples, content))
    return replace(audio, pieces=tuple(pieces), notes=notes)


def _ogg(audio: Audio, opened: SoundFile, data: Bytes) -> Audio:
    """Each link of a chain is a piece."""
    found = ogg.walk(data)
    if found.missing or not found.links:
        raise unreadable(audio.path, "its last page is not complete")
    if junk_length(data, found.links[-1].end) > MAX_JUNK:
        raise unreadable(audio.path, "it goes on after its last page")
    pieces = [Piece(opened.frames)]
    if len(found.links) > 1:
        pieces = []
        for link in found.links:
            content = bytes(data[link.begin : link.end])
            with sound_file(audio.path, content) as part:
                _check_alike(audio, part)
                pieces.append(Piece(part.frames, content))
    for link in found.links:
        for last, highest in link.granules.values():
            if last < highest:
                raise longer(audio.path, last, highest, audio.rate)
    notes = ()
    if not all(link.ended for link in found.links):
        notes = ("no page is marked as the last: the file may be truncated",)
    samples = sum(piece.samples for piece in pieces)
    slack = max(_small(samples, audio.rate), round(DELAY_SECONDS * audio.rate))
    return replace(audio, pieces=tuple(pieces), slack=slack, notes=notes)


def _check_alike(audio: Audio, part: SoundFile) -> None:
    if (part.samplerate, part.channels) != (audio.rate, audio.channels):
        raise unreadable(
            audio.path,
            f"files of {audio.rate} Hz, {audio.channels} channels and "
            f"{part.samplerate} Hz, {part.channels} channels were joined",
        )


def _mpeg(audio: Audio, opened: SoundFile, data: Bytes) -> Audio:
    """libsndfile reads the file itself if it finds all frames, else a copy of the frames."""
    extent = containers.extent(data)
    begin, end = 0, len(data)
    if extent:  # WAV can hold MP3
        begin, end = extent.begin, extent.begin + extent.present
        if extent.size is not None and extent.size > extent.present + SLACK_BYTES:
            promised = f"its header promises {extent.size} bytes of samples"
            raise unreadable(audio.path, f"{promised}, it holds {extent.present}")
        if extent.junk > MAX_JUNK:
            raise unreadable(audio.path, f"{extent.junk} bytes follow its samples")
    found = mpeg.walk(data, begin, end)
    if found is None:
        if opened.frames >= containers.ENDLESS:
            raise unreadable(audio.path, "it has no frames of MPEG audio")
        note = "frames of this kind of MPEG audio are not counted: truncation cannot be detected"
        return replace(audio, pieces=(Piece(opened.frames),), notes=(note,))
    held = found.frames * found.samples_per_frame
    slack = max(_small(held, audio.rate), 2 * found.samples_per_frame)
    notes = _mpeg_notes(audio, found, slack)
    if not extent and found.is_plain and abs(opened.frames - held) <= MAX_GAPLESS + slack:
        piece = Piece(opened.frames)  # without the samples that its header says to drop
    elif not extent and found.promised is None and not found.junk and opened.frames >= held:
        piece = Piece(held)
    else:
        content = mpeg.rebuild(data, found)
        with sound_file(audio.path, content) as again:
            piece = Piece(min(held, again.frames), content)  # without the delay of the decoder
        if piece.samples < held - MAX_GAPLESS:
            raise shorter(audio.path, held, piece.samples, audio.rate)
    return replace(audio, pieces=(piece,), slack=slack, notes=notes)


def _mpeg_notes(audio: Audio, found: mpeg.Mpeg, slack: int) -> tuple[str, ...]:
    """Notes about small faults of the frames; `PamError` for large ones."""
    held = found.frames * found.samples_per_frame
    if found.promised is None:
        there = held + found.lost * found.samples_per_frame
        if there - held > slack:
            raise unreadable(
                audio.path,
                f"{found.junk + found.tail} bytes are not frames: it holds {held} samples "
                f"({held / audio.rate:.2f} s) of about {there} ({there / audio.rate:.2f} s)",
            )
        return ("its last frame is incomplete",) if found.is_cut else ()
    promised = found.promised * found.samples_per_frame
    if promised - held > slack or (promised > held and found.is_cut):
        raise shorter(audio.path, promised, held, audio.rate)
    if found.junk + found.tail > MAX_JUNK:
        raise unreadable(audio.path, f"{found.junk + found.tail} bytes are not frames")
    if promised < held:
        return (f"{two_lengths(promised, held, audio.rate)}, which are read",)
    return _short_note(promised, held, audio.rate)


def _small(samples: int, rate: int) -> int:
    return round(min(SMALL_SHARE * samples, SMALL_SECONDS * rate))


def _short_note(promised: int, held: int, rate: int) -> tuple[str, ...]:
    return (two_lengths(promised, held, rate),) if promised > held else ()
