"""FLAC: count the samples of a file, even if its header is wrong (RFC 9639).

If an encoder wrote into a pipe, the header states 0 samples. libsndfile reads no more samples than
the header states. The last frame of the file holds the number of the samples before it.
"""

from collections.abc import Iterator
from functools import cache

from pam.data.tags import Bytes

MARKERS = tuple(b"fLaC" + bytes([last]) + b"\0\0\x22" for last in (0x00, 0x80))
STREAMINFO = slice(8, 42)
TOTAL = slice(18, 26)  # bytes whose lower 36 bits are the number of samples
TOTAL_BITS = 36
TAIL_BYTES = 1 << 16  # where the last frame is searched; it is rarely longer
MAX_HEADER_BYTES = 16
SMALL_BLOCKS = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}}
BLOCKS = SMALL_BLOCKS | {code: 256 << code - 8 for code in range(8, 16)}
EXTRA_RATE_BYTES = {12: 1, 13: 2, 14: 2}


def links(data: Bytes, begin: int) -> list[tuple[int, int]]:
    """The FLAC files that `data[begin:]` is a concatenation of, each as bytes (begin, end)."""
    starts = {begin}
    for marker in MARKERS:
        position = begin
        while (position := data.find(marker, position + 1)) >= 0:
            starts.add(position)
    ordered = sorted(starts)
    return list(zip(ordered, [*ordered[1:], len(data)], strict=True))


def stated(stream: bytes) -> int:
    """The number of samples in the header; 0: unknown."""
    return int.from_bytes(stream[TOTAL]) & (1 << TOTAL_BITS) - 1


def with_total(stream: bytes, samples: int) -> bytes:
    """A copy of the file whose header states `samples`."""
    other = int.from_bytes(stream[TOTAL]) >> TOTAL_BITS << TOTAL_BITS
    return stream[: TOTAL.start] + (other | samples).to_bytes(8) + stream[TOTAL.stop :]


def counted(data: Bytes, begin: int, end: int) -> int | None:
    """The number of samples according to the last frame of a file; None if none is found.

    A frame is verified by its checksum, unless its count agrees with the header.
    """
    header = data[begin : begin + STREAMINFO.stop]
    block, total = int.from_bytes(header[8:10]), stated(header)
    tail = data[max(begin + STREAMINFO.stop, end - TAIL_BYTES) : end]
    first = None
    for position, samples in _frames_from_end(tail, block):
        if samples == total or _crc16(tail[position:]) == 0:
            return samples
        first = samples if first is None else first
    return first if not total else None


def _frames_from_end(tail: bytes, block: int) -> Iterator[tuple[int, int]]:
    """(position, samples up to its end) of each possible frame, the last one first."""
    position = len(tail)
    while (position := tail.rfind(b"\xff", 0, position)) >= 0:
        samples = _end_of_frame(tail[position : position + MAX_HEADER_BYTES], block)
        if samples is not None:
            yield position, samples


def _end_of_frame(header: bytes, block: int) -> int | None:
    """Number of samples up to the end of this header's frame; None if it is not a header."""
    if len(header) < 6 or header[1] & 0xFE != 0xF8 or header[3] & 1:
        return None
    size_code, rate_code = header[2] >> 4, header[2] & 15
    if not size_code or rate_code == 15 or header[3] >> 4 > 10:
        return None
    if 0x80 <= header[4] < 0xC0 or header[4] == 0xFF:  # not the first byte of a number
        return None
    number_bytes = max(1, 8 - (header[4] ^ 0xFF).bit_length())  # coded as in UTF-8
    number = header[4] & (0x7F if number_bytes == 1 else (1 << 7 - number_bytes) - 1)
    for byte in header[5 : 4 + number_bytes]:
        number = number << 6 | byte & 0x3F
    at = 4 + number_bytes
    size_bytes = {6: 1, 7: 2}.get(size_code, 0)
    size = int.from_bytes(header[at : at + size_bytes]) + 1 if size_bytes else BLOCKS[size_code]
    at += size_bytes + EXTRA_RATE_BYTES.get(rate_code, 0)
    if at >= len(header) or _crc8(header[:at]) != header[at]:
        return None
    is_sample_number = header[1] & 1  # else a frame number, and all frames have the same size
    return (number if is_sample_number else number * block) + size


@cache
def _table(polynomial: int, bits: int) -> tuple[int, ...]:
    mask, top = (1 << bits) - 1, 1 << bits - 1
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value & top else 0)) & mask
        table.append(value)
    return tuple(table)


def _crc8(data: bytes) -> int:
    table, value = _table(0x07, 8), 0
    for byte in data:
        value = table[value ^ byte]
    return value


def _crc16(data: bytes) -> int:
    table, value = _table(0x8005, 16), 0
    for byte in data:
        value = (value << 8 & 0xFFFF) ^ table[value >> 8 ^ byte]
    return value
