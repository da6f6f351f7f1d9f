"""Read data sets of the Hugging Face hub from Parquet files, or from the Arrow files of a cache.

Rows are read a few at a time. A page of Parquet must fit in memory; its writer chose its size. An
audio cell has `bytes`, the content of an audio file, and `path`, its name. Without bytes, `path` is
a file outside the data set. Audio is written to files. No other module uses pyarrow.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import RecordBatch
from pyarrow.parquet import ParquetFile

from pam.atomic import atomic_path
from pam.data.mpeg import parse_frame
from pam.data.search import find_files
from pam.disk import writing
from pam.errors import PamError

ROWS_AT_ONCE = 8  # with audio they take some megabytes
BUFFER_BYTES = 1 << 20
# First bytes of a file → its suffix. In the formats of FORMS a name follows after eight bytes.
STARTS = {
    b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"riff\x2e\x91\xcf\x11": ".w64",
    b".snd": ".au", b"dns.": ".au", b"caff": ".caf", b"NIST_1A": ".sph",
}  # fmt: skip
FORMS = {
    (b"RIFF", b"WAVE"): ".wav", (b"RIFX", b"WAVE"): ".wav", (b"RF64", b"WAVE"): ".wav",
    (b"FORM", b"AIFF"): ".aiff", (b"FORM", b"AIFC"): ".aiff",
}  # fmt: skip
SUFFIXES = tuple(dict.fromkeys([*STARTS.values(), *FORMS.values()]))


def find_parquet(folder: Path, pattern: str = "*.parquet") -> list[Path]:
    """All files below `folder` that match, sorted; an empty list if there are none.

    PamError for files of a folder partial-SPLIT, where the hub has only the first part of a split.
    """
    found = find_files(folder, pattern)
    for file in found:
        if any(part.startswith("partial-") for part in file.relative_to(folder).parts[:-1]):
            raise PamError(f"{file}: only a part of the split: copy the data set's own files")
    return found


def columns(file: Path) -> list[str]:
    """The names of a file's columns."""
    with _opened(file) as opened:
        return opened.columns


def rows(files: Sequence[Path], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of all files with the columns `names`."""
    for file in files:
        for _, row in numbered_rows(file, names):
            yield row


def numbered_rows(
    file: Path, names: Sequence[str], numbers: Collection[int] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 0, columns `names`) for all rows, or only for the rows `numbers`.

    Groups of rows without any of these are not read.
    """
    chosen = None if numbers is None else sorted(numbers)
    with _opened(file) as opened:
        if lacking := [name for name in names if name not in opened.columns]:
            has = ", ".join(opened.columns)
            raise PamError(
                f"{file}: no column {lacking[0]!r}, it has {has}: check that it is the right set"
            )
        for first, batch in opened.batches(list(names), chosen):
            for place in _within(chosen, first, batch.num_rows):
                yield first + place, batch.slice(place, 1).to_pylist()[0]


def _within(chosen: list[int] | None, first: int, count: int) -> Sequence[int]:
    """The chosen rows among the `count` rows from `first` on, as indices relative to `first`."""
    if chosen is None:
        return range(count)
    begin, end = bisect_left(chosen, first), bisect_left(chosen, first + count)
    return [number - first for number in chosen[begin:end]]


def audio_file(cell: Any, folder: Path, name: str | None = None) -> Path | None:
    """Write the audio of a cell to FOLDER/NAME.flac (.wav …) if it is not there; returns the path.

    None if the cell has no audio. The default name is a digest of the content, so that audio of
    several rows is written once. A file outside the data set is not copied.
    """
    content = cell.get("bytes") if isinstance(cell, Mapping) else None
    if not content:
        outside = Path(isinstance(cell, Mapping) and cell.get("path") or "")
        return outside if outside.is_absolute() and outside.is_file() else None
    suffix = audio_suffix(content)
    if not suffix:
        return None
    name = name or hashlib.sha256(content).hexdigest()[:16]
    file = folder.absolute() / f"{name}{suffix}"
    if not file.is_file():
        with writing(file), atomic_path(file) as part:
            part.write_bytes(content)
    return file


def audio_suffix(content: bytes) -> str | None:
    """The suffix of an audio file from its first bytes; None if it is not audio."""
    if suffix := FORMS.get((content[:4], content[8:12])):
        return suffix
    if parse_frame(content[:4]):
        return ".mp3"
    return next((suffix for start, suffix in STARTS.items() if content.startswith(start)), None)


def find_audio(folder: Path, name: str) -> Path | None:
    """The file that `audio_file` wrote under this name; None if there is none."""
    files = (folder.absolute() / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


class _Parquet:
    def __init__(self, table: ParquetFile):
        self.table, self.columns = table, list(table.schema_arrow.names)

    def batches(
        self, names: list[str], chosen: list[int] | None
    ) -> Iterator[tuple[int, RecordBatch]]:
        """Yield (number of the first row, a few rows) from groups that contain chosen rows."""
        first = 0
        for group in range(self.table.num_row_groups):
            at, count = first, self.table.metadata.row_group(group).num_rows
            first += count
            if _within(chosen, at, count):
                for batch in self.table.iter_batches(
                    ROWS_AT_ONCE, row_groups=[group], columns=names, use_threads=False
                ):
                    yield at, batch
                    at += batch.num_rows


class _Stream:
    def __init__(self, reader: pyarrow.RecordBatchStreamReader):
        self.reader, self.columns = reader, list(reader.schema.names)

    def batches(
        self, names: list[str], chosen: list[int] | None
    ) -> Iterator[tuple[int, RecordBatch]]:
        """As `_Parquet.batches`. The file is memory-mapped, so skipped rows cost nothing."""
        first = 0
        for batch in self.reader:
            yield first, batch.select(names)
            first += batch.num_rows


@contextmanager
def _opened(file: Path) -> Iterator[_Parquet | _Stream]:
    try:
        if file.suffix == ".arrow":
            with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as reader:
                yield _Stream(reader)
        else:
            # Without these options a group's whole column, gigabytes of audio, is read first.
            with ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as table:
                yield _Parquet(table)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        kind = "Arrow" if file.suffix == ".arrow" else "Parquet"
        raise PamError(f"{file}: truncated or no {kind} file ({reason}): copy it again") from error
