"""MPEG audio (MP3, MP2, MP1): counts the frames, which libsndfile only guesses.

A file is a row of frames, each of which says its own length. The first may hold no sound but, after
"Xing", "Info" or "VBRI", a count of the others. libsndfile believes this count and reads no
further; without one it guesses from the first bit rate. See ISO/IEC 11172-3 and 13818-3, section
2.4.2.3, and for the count http://gabriel.mp3-tech.org/mp3infotag.html.
"""

from dataclasses import dataclass
from functools import lru_cache

from pam.data.tags import Bytes, ape_items_length, tag_length

# kbit/s by (MPEG 1, layer) and the index in the header; 0: not one of the fixed rates
BITRATES = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448, 0),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 0),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256, 0),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
BITRATES[False, 3] = BITRATES[False, 2]
RATES = (44100, 48000, 32000)
RATE_DIVISORS = {3: 1, 2: 2, 0: 4}  # MPEG 1, 2, 2.5
VBRI_OFFSET = 36  # bytes from the frame's start; its count is 14 bytes further
MAX_PADDING = 4096  # zeros at the end of a file
COUNT_FRAME_BITRATE = 8  # index; a frame of this bit rate has room for a count


@dataclass(frozen=True)
class Frame:
    """What a frame's header says; `form` is the same for all frames of a stream."""

    form: tuple[int, int, int, bool]  # MPEG version, layer, rate in Hz, mono
    length: int  # bytes
    samples: int
    count_offset: int  # where "Xing" would stand, bytes from the frame's start


@dataclass(frozen=True)
class Mpeg:
    """The frames of a file.

    `promised` is the number that the file itself states, None where it states none. `junk` bytes
    before the last frame, and `tail` bytes after it, belong to no frame and no tag. `is_cut` is
    true where the last frame is not complete. `is_plain` says that one count, in the first frame,
    promises no fewer frames than there are. `spans` are the bytes (begin, end) of frames that
    follow each other.
    """

    rate: int
    layer: int
    samples_per_frame: int
    frames: int
    promised: int | None
    junk: int
    tail: int
    is_cut: bool
    is_plain: bool
    spans: tuple[tuple[int, int], ...]

    @property
    def lost(self) -> int:
        """About how many frames are missing in the junk."""
        size = sum(end - begin for begin, end in self.spans)
        return round((self.junk + self.tail) * self.frames / size) if size else 0


@lru_cache(maxsize=4096)
def parse_frame(header: bytes) -> Frame | None:
    """A frame by its first four bytes; None where they are no header, or of a free bit rate."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate_index = header[2] >> 2 & 3
    if version == 1 or layer == 4 or rate_index == 3:
        return None
    first = version == 3
    bitrate = BITRATES[first, layer][header[2] >> 4] * 1000
    if not bitrate:
        return None
    rate = RATES[rate_index] // RATE_DIVISORS[version]
    padding, mono = header[2] >> 1 & 1, header[3] >> 6 == 3
    if layer == 1:
        length, samples = (12 * bitrate // rate + padding) * 4, 384
    else:
        samples = 1152 if first or layer == 2 else 576
        length = samples // 8 * bitrate // rate + padding
    side_info = (17 if mono else 32) if first else (9 if mono else 17)
    checksum = 0 if header[1] & 1 else 2
    return Frame((version, layer, rate, mono), length, samples, 4 + checksum + side_info)


def walk(data: Bytes, begin: int, end: int) -> Mpeg | None:
    """Count the frames of `data[begin:end]`; None where there is none."""
    while length := tag_length(data, begin, end):
        begin += length
    position = _resync(data, begin, end, None)
    first = parse_frame(data[position : position + 4])
    if first is None:
        return None
    frames, junk, tail, is_cut = 0, position - begin, 0, False
    counts: list[int | None] = []  # of the frames that hold a count
    spans: list[list[int]] = []
    last = None  # where the last frame that counts as sound begins, if nothing was after it
    while position < end:
        frame = parse_frame(data[position : position + 4])
        if frame is None or frame.form != first.form:
            length = tag_length(data, position, end) or ape_items_length(data, position, end)
            if length:
                position, last = position + length, None
                continue
            found = _resync(data, position + 1 if last is None else last + 1, end, first)
            if last is not None and found < position:  # a second file begins in a frame that is cut
                frames, spans[-1][1], position = frames - 1, last, last
            if found < end:
                junk += found - position
            else:
                tail += _without_padding(data[position:end])
            position, last = found, None
            continue
        if position + frame.length > end:
            is_cut = True
            break
        is_count, count = _count(data, position, frame)
        if is_count:
            counts.append(count)
        else:
            frames, last = frames + 1, position
            if not spans or spans[-1][1] != position:
                spans.append([position, position])
            spans[-1][1] = position + frame.length
        position += frame.length
    promised = _promised(counts, frames)
    is_plain = len(counts) == 1 and counts[0] is not None and counts[0] >= frames and not junk
    return Mpeg(
        first.form[2], first.form[1], first.samples, frames, promised, junk, tail, is_cut, is_plain,
        tuple((begin, end) for begin, end in spans),
    )  # fmt: skip


def rebuild(data: Bytes, mpeg: Mpeg) -> bytes:
    """The frames alone, after one that holds their right count (layer III)."""
    frames = b"".join(data[begin:end] for begin, end in mpeg.spans)
    if mpeg.layer != 3:
        return frames
    _, second, third, fourth = frames[:4]
    header = bytes([0xFF, second | 1, COUNT_FRAME_BITRATE << 4 | third & 0x0C, fourth])
    frame = parse_frame(header)
    count = header.ljust(frame.count_offset, b"\0") + b"Xing" + (1).to_bytes(4)
    count += mpeg.frames.to_bytes(4)
    return count.ljust(frame.length, b"\0") + frames


def _resync(data: Bytes, begin: int, end: int, like: Frame | None) -> int:
    """Where the next frame is that another one, a tag or the end follows; `end` without one."""
    position = begin
    while 0 <= (position := data.find(b"\xff", position, end)) < end:
        frame = parse_frame(data[position : position + 4])
        if frame and (like is None or frame.form == like.form):
            after = position + frame.length
            other = parse_frame(data[after : after + 4])
            is_followed = after == end or tag_length(data, after, end)
            if is_followed or (other and other.form == frame.form):
                return position
        position += 1
    return end


def _without_padding(tail: bytes) -> int:
    """How many bytes these are without some zeros at the end."""
    return max(len(tail.rstrip(b"\0")), len(tail) - MAX_PADDING)


def _count(data: Bytes, position: int, frame: Frame) -> tuple[bool, int | None]:
    """Whether a frame holds a count instead of sound, and the count where it is filled in."""
    if frame.form[1] != 3:
        return False, None
    at = position + frame.count_offset
    if data[at : at + 4] in (b"Xing", b"Info"):
        has_count = data[at + 7] & 1
        return True, int.from_bytes(data[at + 8 : at + 12]) or None if has_count else None
    at = position + VBRI_OFFSET
    if data[at : at + 4] == b"VBRI":
        return True, int.from_bytes(data[at + 14 : at + 18]) or None
    return False, None


def _promised(counts: list[int | None], frames: int) -> int | None:
    """Of several files in a row the first count may be that of all; else their sum counts."""
    known = [count for count in counts if count is not None]
    if not known:
        return None
    inner = len(counts) - 1  # a program that joined the files has counted these frames as sound
    return known[0] - inner if known[0] >= frames else sum(known)
