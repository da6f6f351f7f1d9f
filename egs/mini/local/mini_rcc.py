"""Qt resource files (.rcc): a tree of names over a blob of files, some of them zlib-compressed."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from pam.errors import PamError

MAGIC = b"qres"
HEADER = struct.Struct(">4sIIII")  # magic, version, offsets of tree, data and names
COMPRESSED_ZLIB, DIRECTORY, COMPRESSED_ZSTD = 1, 2, 4


def read_rcc(path: str | Path) -> Iterator[tuple[str, bytes]]:
    """(path inside, content) of every file; zstd-compressed ones are left out (none is a sound)."""
    blob = Path(path).read_bytes()
    if len(blob) < HEADER.size or blob[:4] != MAGIC:
        raise PamError(f"{path}: not a Qt resource file: remove its folder and run again")
    _, version, tree_at, data_at, names_at = HEADER.unpack_from(blob)
    node_bytes = 14 if version < 2 else 22  # version 2 adds the time of the last change

    def name(offset: int) -> str:
        (length,) = struct.unpack_from(">H", blob, names_at + offset)
        start = names_at + offset + 6  # the length and a hash
        return blob[start : start + 2 * length].decode("utf-16-be")

    def walk(number: int, folder: str) -> Iterator[tuple[str, bytes]]:
        at = tree_at + number * node_bytes
        name_offset, flags = struct.unpack_from(">IH", blob, at)
        here = f"{folder}/{name(name_offset)}".lstrip("/") if number else ""
        if flags & DIRECTORY:
            count, first = struct.unpack_from(">II", blob, at + 6)
            for child in range(first, first + count):
                yield from walk(child, here)
        elif not flags & COMPRESSED_ZSTD:
            (offset,) = struct.unpack_from(">I", blob, at + 10)
            yield here, content(data_at + offset, flags)

    def content(at: int, flags: int) -> bytes:
        (size,) = struct.unpack_from(">I", blob, at)
        raw = blob[at + 4 : at + 4 + size]
        return zlib.decompress(raw[4:]) if flags & COMPRESSED_ZLIB else raw

    yield from walk(0, "")
