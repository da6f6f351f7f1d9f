"""MPEG audio (MP3, MP2, MP1): count the frames, because libsndfile only estimates their number.

A file is a sequence of frames, and each frame states its own length. The first frame may hold no
sound but the number of the other frames, after "Xing", "Info" or "VBRI". libsndfile trusts this
number and reads no more frames. Without it, libsndfile estimates from the first bit rate. See
ISO/IEC 11172-3 and 13818-3, section 2.4.2.3, and for the count
http://gabriel.mp3-tech.org/mp3infotag.html.
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
VBRI_OFFSET = 36  # bytes from the frame's start; the count is 14 bytes further
MAX_PADDING = 4096  # zeros at the end of a file
COUNT_FRAME_BITRATE = 8  # index; a frame of this bit rate has room for a count


@dataclass(frozen=True)
class Frame:
    """The content of a frame's header; all frames of a stream have the same `form`."""

    form: tuple[int, int, int, bool]  # MPEG version, layer, rate in Hz, mono
    length: int  # bytes
    samples: int
    count_offset: int  # where "Xing" would stand, bytes from the frame's start


@dataclass(frozen=True)
class Mpeg:
    """The frames of a file.

    Attributes:
        promised: number of frames that the file states; None if it states none.
        junk, tail: bytes before and after the end of the last frame that belong to no frame and no
            tag.
        is_cut: whether the last frame is incomplete.
        is_plain: whether only the first frame states a count, and it is not too low.
        spans: (begin, end) bytes of each sequence of adjacent frames.
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
        """Approximate number of frames that are missing in the junk."""
        size = sum(end - begin for begin, end in self.spans)
        return round((self.junk + self.tail) * self.frames / size) if size else 0


@lru_cache(maxsize=4096)
def parse_frame(header: bytes) -> Frame | None:
    """The frame of a four-byte header; None if it is not a header or has a free bit rate."""
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
    """Count the frames of `data[begin:end]`; None if there are none."""
    while length := tag_length(data, begin, end):
        begin += length
    position = _resync(data, begin, end, None)
    first = parse_frame(data[position : position + 4])
    if first is None:
        return None
    frames, junk, tail, is_cut = 0, position - begin, 0, False
    counts: list[int | None] = []  # of the frames that hold a count
    spans: list[list[int]] = []
    last = None  # start of the last frame with sound, if nothing else followed it
    while position < end:
        frame = parse_frame(data[position : position + 4])
        if frame is None or frame.form != first.form:
            length = tag_length(data, position, end) or ape_items_length(data, position, end)
            if length:
                position, last = position + length, None
                continue
            found = _resync(data, position + 1 if last is None else last + 1, end, first)
            if last is not None and found < position:  # a second file cuts a frame
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
    """The frames without junk. In layer III a frame with the right count precedes them."""
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
    """The start of the next frame that is followed by a frame, a tag or the end; else `end`."""
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
    """Number of bytes in `tail` without the zeros at its end."""
    return max(len(tail.rstrip(b"\0")), len(tail) - MAX_PADDING)


def _count(data: Bytes, position: int, frame: Frame) -> tuple[bool, int | None]:
    """Whether a frame holds a count instead of sound, and the count if it is filled in."""
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
    """The stated number of frames. With concatenated files the first count may include all of
    them; otherwise it is the sum of their counts."""
    known = [count for count in counts if count is not None]
    if not known:
        return None
    inner = len(counts) - 1  # the program that joined the files counted these as sound
    return known[0] - inner if known[0] >= frames else sum(known)
