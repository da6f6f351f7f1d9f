"""Find out how many samples a file with a header and uncompressed samples states and holds.

libsndfile alone is not enough: it reads a truncated file without an error, and stops early if the
header is wrong. In chunked formats (WAV, AIFF …) the chunks give the bytes of the samples. For
other formats libsndfile's log of the header gives the number of samples.
"""

import re
import struct
from dataclasses import dataclass

import soundfile

from pam.data.tags import Bytes, junk_length, leading_tags

NEAR = 1 << 16  # a size this close below 2 or 4 GiB means "unknown": the writer wrote into a pipe
ENDLESS = 1 << 48  # bytes or samples; no file has more
MAX_HEADER = 4096
AU_SIZE = slice(8, 12)
# Chunks after the samples whose truncation loses no audio.
TEXT_CHUNKS = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"JUNK", b"ANNO", b"info")
WIDTHS = {
    "PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1, "DPCM_8": 1, "PCM_16": 2, "DPCM_16": 2,
    "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """A chunked file format.

    Attributes:
        first: byte where the first chunk begins.
        head: struct format of a chunk's header, its name and size.
        data: beginning of the name of the chunk with the samples.
        counted: bytes of the header that the size includes.
        align: chunks begin at multiples of this.
        lead: bytes before the samples in their chunk.
    """

    first: int
    head: str
    data: bytes
    counted: int = 0
    align: int = 2
    lead: int = 0


RIFF, RIFX = Layout(12, "<4sI", b"data"), Layout(12, ">4sI", b"data")
LAYOUTS = {
    b"RIFF": RIFF, b"RF64": RIFF, b"RIFX": RIFX,
    b"riff": Layout(40, "<16sQ", b"data", counted=24, align=8),  # W64
    b"caff": Layout(8, ">4sQ", b"data", align=1, lead=4),
}  # fmt: skip
FORM_LAYOUTS = {
    b"AIFF": Layout(12, ">4sI", b"SSND", lead=8), b"AIFC": Layout(12, ">4sI", b"SSND", lead=8),
    b"8SVX": Layout(12, ">4sI", b"BODY"), b"16SV": Layout(12, ">4sI", b"BODY"),
}  # fmt: skip


@dataclass(frozen=True)
class Chunk:
    """Byte where a chunk's content begins, and the size in its header."""

    name: bytes
    begin: int
    size: int


@dataclass(frozen=True)
class Extent:
    """The bytes of the samples.

    They begin at `begin`. The header states `size` bytes (None: not stated), and the file holds
    `present`. `junk` counts bytes after them that belong to no chunk and no tag.
    """

    begin: int
    size: int | None
    present: int
    junk: int = 0


def extent(data: Bytes) -> Extent | None:
    """The bytes of the samples in a chunked, AU or VOC file; None for others or without samples."""
    start = leading_tags(data)
    if layout := _layout(data, start):
        return _chunk_extent(data, start, layout)
    magic = data[start : start + 8]
    if magic[:4] in (b".snd", b"dns."):
        order = "big" if magic[:4] == b".snd" else "little"
        begin = int.from_bytes(data[start + 4 : start + 8], order)
        size = int.from_bytes(data[start + AU_SIZE.start : start + AU_SIZE.stop], order)
        return _extent(data, begin, size, begin + size)
    return _voc_extent(data) if magic == b"Creative" else None


def stated_samples(file: soundfile.SoundFile, data: Bytes) -> int | None:
    """Number of samples in the header of one of the simpler formats; None if not stated."""
    samples = 0
    if file.format == "NIST":
        if found := re.search(rb"^sample_count -i (\d+)", data[:MAX_HEADER], re.MULTILINE):
            samples = int(found[1])
    elif file.format in ("AVR", "MPC2K"):
        samples = _logged(file, "Frames")
    elif file.format in ("MAT4", "MAT5"):
        samples = _logged(file, "Cols")
    elif file.format == "WVE":
        samples = int.from_bytes(data[18:22])
    elif file.format == "SDS":
        samples = file.frames
    return None if is_unknown(samples) else samples


def held_samples(file: soundfile.SoundFile, data: Bytes) -> int:
    """Number of samples that a file of one of the simpler formats can hold by its size."""
    if file.format == "SDS":
        return _logged(file, "Blocks") * _logged(file, "Samples/Block")
    width = bytes_per_sample(file)
    return max(file.frames, (len(data) - MAX_HEADER) // width if width else 0)


def _logged(file: soundfile.SoundFile, name: str) -> int:
    """The last number called `name` in libsndfile's log of the header; 0 if there is none."""
    found = re.findall(rf"\b{name} *: (\d+)", file.extra_info)
    return int(found[-1]) if found else 0


def bytes_per_sample(file: soundfile.SoundFile) -> int | None:
    """Bytes of one sample of all channels; None for a compressed subtype."""
    width = WIDTHS.get(file.subtype)
    return width and width * file.channels


def is_unknown(size: int) -> bool:
    """Whether a header's size means "unknown when the header was written"."""
    below = any(0 <= limit - size <= NEAR for limit in (1 << 31, 1 << 32))
    return size == 0 or below or size >= ENDLESS


def repaired(data: Bytes) -> bytes | None:
    """The file with corrected sizes in its headers, for libsndfile; None for an unknown format.

    Adds missing padding bytes of chunks and corrects the size of the samples.
    """
    start = leading_tags(data)
    if data[start : start + 4] in (b".snd", b"dns."):
        order = "big" if data[start : start + 1] == b"." else "little"
        size = len(data) - int.from_bytes(data[start + 4 : start + 8], order)
        at = start + AU_SIZE.start
        return bytes(data[start:at]) + size.to_bytes(4, order) + data[start + AU_SIZE.stop :]
    layout = _layout(data, start)
    if layout is None:
        return None
    chunks, _ = _chunks(data, start, layout)
    if not chunks or len(data) >= 1 << 31:
        return None
    parts = [bytes(data[start : start + layout.first])]
    for chunk in chunks:
        content = _content(data, chunk, layout)
        if chunk.name == b"ds64":
            content = _ds64(content, data, chunks)
        is_long = data[start : start + 4] == b"RF64" and chunk.name == b"data"
        size = 0xFFFFFFFF if is_long else len(content) + layout.counted
        padding = bytes(-(len(content) + struct.calcsize(layout.head)) % layout.align)
        parts += [struct.pack(layout.head, chunk.name, size), content, padding]
    return b"".join(parts)


def _layout(data: Bytes, start: int) -> Layout | None:
    magic = data[start : start + 4]
    if magic == b"FORM":
        return FORM_LAYOUTS.get(data[start + 8 : start + 12])
    return LAYOUTS.get(magic)


def _chunks(data: Bytes, start: int, layout: Layout) -> tuple[list[Chunk], int]:
    """The chunks that begin before the end of the file, and the end of the last valid one."""
    chunks: list[Chunk] = []
    position, long = start + layout.first, 0
    head = struct.calcsize(layout.head)
    while position + head <= len(data):
        name, size = struct.unpack(layout.head, data[position : position + head])
        if not _is_name(name) or (chunks and name[:4] == data[start : start + 4]):
            break  # junk, or a second file
        begin, size = position + head, max(size - layout.counted, 0)
        if name == b"ds64":  # RF64 keeps sizes above 4 GiB here
            long = int.from_bytes(data[begin + 8 : begin + 16], "little")
        is_data = name.startswith(layout.data)
        if is_data and size in (0, 0xFFFFFFFF):
            size = long or size
        if not is_data and begin + size > len(data) and name[:4] not in TEXT_CHUNKS:
            break
        chunks.append(Chunk(name, begin, size))
        position = begin + size
        if is_data and _is_until_end(data, begin, size, layout):
            return chunks, len(data)
        padding = -(position - start) % layout.align
        is_padded = _fits(data, position + padding, layout) or not _fits(data, position, layout)
        position += padding if is_padded else 0  # some programs write none
    return chunks, min(position, len(data))


def _fits(data: Bytes, position: int, layout: Layout) -> bool:
    """Whether a chunk begins at `position` and ends within the file."""
    head = data[position : position + struct.calcsize(layout.head)]
    if len(head) < struct.calcsize(layout.head) or not _is_name(head):
        return False
    name, size = struct.unpack(layout.head, head)
    return name.startswith(layout.data) or position + len(head) + size <= len(data)


def _is_name(name: bytes) -> bool:
    return len(name) >= 4 and all(32 <= byte < 127 for byte in name[:4])


def _is_until_end(data: Bytes, begin: int, size: int, layout: Layout) -> bool:
    """Whether a chunk of samples reaches the end of the file although its size says otherwise."""
    size = max(size - layout.lead, 0)
    if begin + layout.lead + size <= len(data) and size:
        return False
    following = begin + layout.lead
    return is_unknown(size) and (size > 0 or not _is_name(data[following : following + 4]))


def _content(data: Bytes, chunk: Chunk, layout: Layout) -> bytes:
    until_end = chunk.name.startswith(layout.data) and _is_until_end(
        data, chunk.begin, chunk.size, layout
    )
    end = len(data) if until_end else chunk.begin + chunk.size
    return bytes(data[chunk.begin : end])


def _ds64(content: bytes, data: Bytes, chunks: list[Chunk]) -> bytes:
    samples = next(chunk for chunk in chunks if chunk.name == b"data")
    size = len(_content(data, samples, RIFF))
    return content[:8] + size.to_bytes(8, "little") + bytes(8) + content[24:]


def _chunk_extent(data: Bytes, start: int, layout: Layout) -> Extent | None:
    chunks, end = _chunks(data, start, layout)
    samples = next((chunk for chunk in chunks if chunk.name.startswith(layout.data)), None)
    if samples is None:
        return None
    begin, size = samples.begin + layout.lead, max(samples.size - layout.lead, 0)
    if _is_until_end(data, samples.begin, samples.size, layout):
        return Extent(begin, None, max(len(data) - begin, 0))
    present = min(size, max(len(data) - begin, 0))
    return Extent(begin, size, present, junk_length(data, end))


def _extent(data: Bytes, begin: int, size: int, end: int) -> Extent:
    there = max(len(data) - begin, 0)
    if is_unknown(size) and (size == 0 or size > there):
        return Extent(begin, None, there)
    return Extent(begin, size, min(size, there), junk_length(data, end))


def _voc_extent(data: Bytes) -> Extent | None:
    """All blocks of a VOC file: libsndfile reads from the first sound block to the file's end."""
    position, begin = int.from_bytes(data[20:22], "little"), 0
    while position + 4 <= len(data) and (kind := data[position]):
        size = int.from_bytes(data[position + 1 : position + 4], "little")
        if kind in (1, 9) and not begin:
            begin = position + 4 + (2 if kind == 1 else 12)
        position += 4 + size
    if not begin:
        return None
    there = max(len(data) - begin, 0)
    return Extent(begin, position - begin, min(position - begin, there), len(data[position + 1 :]))
