"""Ogg (Vorbis, Opus): pages, and the links of a chain, of which libsndfile reads only the first.

A page says how long it is and, as its granule position, how many samples end with it. Two files in
a row are a chain, which the specification allows. See RFC 3533, sections 4 and 6.
"""

import struct
from dataclasses import dataclass, field

from pam.data.tags import Bytes

CAPTURE = b"OggS"
PAGE = struct.Struct("<4sBBqIIIB")  # capture, version, flags, granule, serial, number, sum, count
FIRST_PAGE, LAST_PAGE = 2, 4  # flags
NO_GRANULE = -1


@dataclass
class Link:
    """One Ogg stream, or several that run at the same time: bytes `begin` to `end` of the file.

    `granules` are the last and the highest position of each stream; `ended` is true where a page
    says that it is the last.
    """

    begin: int
    end: int
    granules: dict[int, tuple[int, int]] = field(default_factory=dict)
    ended: bool = False


@dataclass(frozen=True)
class Ogg:
    """The links of a file; `missing` bytes of its last page are not there."""

    links: list[Link]
    missing: int


def walk(data: Bytes) -> Ogg:
    """The pages of a file, in links. Bytes between pages are passed over."""
    links: list[Link] = []
    position, missing, was_first = 0, 0, False
    while (position := data.find(CAPTURE, position)) >= 0:
        head = data[position : position + PAGE.size]
        if len(head) < PAGE.size:
            missing = PAGE.size - len(head)
            break
        _, _, flags, granule, serial, _, _, segments = PAGE.unpack(head)
        sizes = data[position + PAGE.size : position + PAGE.size + segments]
        end = position + PAGE.size + segments + sum(sizes)
        if end > len(data) or len(sizes) < segments:
            missing = max(end - len(data), 1)
            break
        if not links or (flags & FIRST_PAGE and not was_first):
            links.append(Link(position, end))
        link, was_first = links[-1], bool(flags & FIRST_PAGE)
        link.end = end
        link.ended |= bool(flags & LAST_PAGE)
        if granule != NO_GRANULE:
            highest = link.granules.get(serial, (0, 0))[1]
            link.granules[serial] = granule, max(granule, highest)
        position = end
    return Ogg(links, missing)
