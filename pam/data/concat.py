"""A concatenation of audio pieces as one entry of wav.scp; no audio is copied.

    utt1 concat:["/clips/a.mp3", ["/clips/b.mp3", 0.5, 2.0], ["/clips/c.mp3", 0.5, null]]

The prefix is followed by JSON. A piece is a file, or a file with start and end in seconds; null is
the end of the file. `load_audio` joins the pieces at 16 kHz when the entry is read. Dump and
combine keep the entry, so that online training reads the original files.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pam.errors import PamError

PREFIX = "concat:"
Piece = tuple[str, float | None, float | None]  # path, start, end, as load_audio takes them


def is_concat(entry: str | Path) -> bool:
    """Whether an entry of wav.scp is a concatenation, not a path."""
    return str(entry).startswith(PREFIX)


def concat_entry(pieces: Sequence[Piece]) -> str:
    """The entry for `pieces`, with absolute paths."""
    listed = []
    for path, start, end in pieces:
        whole = start is None and end is None
        file = str(Path(path).absolute())
        listed.append(file if whole else [file, start, end])
    return PREFIX + json.dumps(listed, ensure_ascii=False)


def parse_concat(entry: str) -> list[Piece]:
    """The pieces of an entry. `PamError` if its syntax is wrong."""
    try:
        listed = json.loads(entry.removeprefix(PREFIX))
        pieces = [(part, None, None) if isinstance(part, str) else tuple(part) for part in listed]
    except (ValueError, TypeError) as error:
        raise _malformed(entry) from error
    if not isinstance(listed, list) or not pieces or not all(map(_is_piece, pieces)):
        raise _malformed(entry)
    return pieces


def files_of(entry: str) -> list[str]:
    """The audio files of an entry of wav.scp: one, or those of a concatenation."""
    return [path for path, _, _ in parse_concat(entry)] if is_concat(entry) else [entry]


def _is_piece(piece: tuple) -> bool:
    if len(piece) != 3 or not isinstance(piece[0], str) or not piece[0]:
        return False
    times = [time for time in piece[1:] if time is not None]
    numbers = all(type(time) in (int, float) and time >= 0 for time in times)
    return numbers and (len(times) < 2 or times[0] < times[1])


def _malformed(entry: str) -> PamError:
    short = entry if len(entry) <= 80 else entry[:79] + "…"
    return PamError(f'{short}: not a concatenation: write concat:["FILE", ["FILE", START, END]]')
