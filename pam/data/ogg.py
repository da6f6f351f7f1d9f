"""Ogg (Vorbis, Opus): pages and chains. libsndfile reads only the first link of a chain.

A page states its length and its granule position, the number of samples up to its end. The
specification allows concatenated streams, which are called a chain. See RFC 3533, sections 4 and 6.
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
    """One Ogg stream, or several multiplexed ones: bytes `begin` to `end` of the file.

    `granules` holds the last and the highest position of each stream. `ended`: whether a page is
    marked as the last.
    """

    begin: int
    end: int
    granules: dict[int, tuple[int, int]] = field(default_factory=dict)
    ended: bool = False


@dataclass(frozen=True)
class Ogg:
    """The links of a file; `missing`: number of bytes that its last page lacks."""

    links: list[Link]
    missing: int


def walk(data: Bytes) -> Ogg:
    """Read the pages of a file, grouped in links. Bytes between pages are skipped."""
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
