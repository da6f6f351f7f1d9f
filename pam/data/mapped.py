"""A text file of a data directory as a mapping that stays on the disk.

A dict of a million lines takes about 240 MB in each process, and in each worker of a loader, since
counting references writes to the pages that they share. Here a line costs 8 bytes: where it begins.
"""

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path

from pam.data.scp import parse_line, read_text_file

ID = re.compile(rb"[^ \t]+")


class MappedText(Mapping[str, str]):
    """The entries of a text file, which must stay as it is: a new version is another file that is
    renamed. `PamError` as of `read_text_file`."""

    def __init__(self, path: str | Path):
        try:
            self._begins, self._data = _scan(Path(path))
        except (OSError, _Faulty):
            read_text_file(path)  # raises the error with the line and the remedy
            raise

    def __getitem__(self, utt: str) -> str:
        wanted = utt.encode()
        place = bisect_left(self._begins, wanted, key=self._id)
        if place == len(self) or self._id(self._begins[place]) != wanted:
            raise KeyError(utt)
        begin = self._begins[place] + len(wanted)
        return self._data[begin : self._data.find(b"\n", begin)].decode().strip()

    def __iter__(self) -> Iterator[str]:
        return (self._id(begin).decode() for begin in self._begins)

    def __len__(self) -> int:
        return len(self._begins)

    def _id(self, begin: int) -> bytes:
        return ID.match(self._data, begin)[0]


class _Faulty(Exception):
    pass


def _scan(path: Path) -> tuple[array, mmap | bytes]:
    """Where the lines begin, and the file. Its lines are sorted, as their ids as bytes are."""
    begins, place, previous = array("q"), 0, ""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            key, _, faults = parse_line(path, number, raw)
            if faults or key <= previous:
                raise _Faulty
            begins.append(place)
            place += len(raw)
            previous = key
        return begins, mmap(file.fileno(), 0, access=ACCESS_READ) if place else b""
