"""Lengths of the tags (titles, pictures …) before and after the audio of a file."""

from mmap import mmap

Bytes = bytes | mmap  # a file that is read or mapped

ID3V1_BYTES = 128
ID3V1_EXTENDED_BYTES = 227
APE_HEADER_BYTES = 32
LYRICS_BEGIN, LYRICS_END = b"LYRICSBEGIN", b"LYRICS200"
MAX_LYRICS_BYTES = 1 << 20


def tag_length(data: Bytes, position: int, end: int) -> int:
    """Bytes of the tag that begins at `position`, up to `end`; 0 if there is no tag."""
    head = data[position : min(position + APE_HEADER_BYTES, end)]
    length = 0
    if head.startswith(b"ID3") and len(head) >= 10 and max(head[6:10]) < 128:
        # Version 2: the size has four bytes of seven bits; a flag says that a footer follows.
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        length = 10 + size + (10 if head[5] & 0x10 else 0)
    elif head.startswith(b"TAG+"):
        length = ID3V1_EXTENDED_BYTES
    elif head.startswith(b"TAG"):
        length = ID3V1_BYTES
    elif head.startswith(b"APETAGEX") and len(head) == APE_HEADER_BYTES:
        is_header = head[23] & 0x20  # a footer alone has its items before it
        length = APE_HEADER_BYTES + (int.from_bytes(head[12:16], "little") if is_header else 0)
    elif head.startswith(LYRICS_BEGIN):
        found = data.find(LYRICS_END, position, min(end, position + MAX_LYRICS_BYTES))
        length = found + len(LYRICS_END) - position if found >= 0 else 0
    return min(length, end - position)


def ape_items_length(data: Bytes, position: int, end: int) -> int:
    """Bytes of an APE tag without a header, which begins with its items; 0 if there is none."""
    footer = data.find(b"APETAGEX", position, end)
    if footer < 0:
        return 0
    size = int.from_bytes(data[footer + 12 : footer + 16], "little")
    after = footer + APE_HEADER_BYTES
    return after - position if after - size == position else 0


def leading_tags(data: Bytes) -> int:
    """Bytes of the tags before the audio."""
    position = 0
    while length := tag_length(data, position, len(data)):
        position += length
    return position


def junk_length(data: Bytes, position: int) -> int:
    """Bytes from `position` to the end that are neither tags nor trailing zeros."""
    while length := tag_length(data, position, len(data)):
        position += length
    return len(data[position:].rstrip(b"\0"))
