"""Parquet copies of data sets of the Hugging Face hub: rows one after another, audio as files.

A column of audio is a pair of `bytes` (a whole audio file) and `path` (its name). The only user of
pyarrow, which is imported when it is needed.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pam.atomic import atomic_path
from pam.data.disk import writing
from pam.errors import UserError

ROWS_AT_ONCE = 8  # of audio they hold some megabytes
BUFFER_BYTES = 1 << 20


def find_parquet(folder: Path, pattern: str = "*.parquet") -> list[Path]:
    """The files anywhere below `folder`, in the order of their names; none where there is none."""
    return sorted(folder.rglob(pattern))


def columns(file: Path) -> list[str]:
    """The names of a file's columns."""
    return list(_open(file).schema_arrow.names)


def rows(files: Sequence[Path], wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of all files with the columns `wanted`, a few in memory at a time."""
    for file in files:
        opened = _open(file)
        if lacking := [name for name in wanted if name not in opened.schema_arrow.names]:
            has = ", ".join(opened.schema_arrow.names)
            raise UserError(f"{file}: no column {lacking[0]!r}, it has {has}: is it another set?")
        batches = opened.iter_batches(ROWS_AT_ONCE, columns=list(wanted), use_threads=False)
        try:
            for batch in batches:
                yield from batch.to_pylist()
        except (OSError, ValueError) as error:
            raise _unreadable(file, error) from error


def audio_bytes(cell: Any, where: str) -> tuple[bytes, str]:
    """The audio file in a cell and its suffix; `UserError` where the cell holds none."""
    content = cell.get("bytes") if isinstance(cell, Mapping) else None
    if not content:
        remedy = "copy the data set with its audio inside (embedded bytes)"
        raise UserError(f"{where}: no audio in the row: {remedy}")
    return content, Path(cell.get("path") or "").suffix.lower() or ".wav"


def write_once(folder: Path, content: bytes, suffix: str) -> Path:
    """A file named by its content: the same audio of several rows is written once."""
    file = folder / f"{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    if not file.is_file():
        with writing(file), atomic_path(file) as part:
            part.write_bytes(content)
    return file.absolute()


def _open(file: Path):
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        remedy = "install it with: python -m pip install pyarrow"
        raise UserError(f"{file}: reading Parquet needs pyarrow: {remedy}") from error
    try:
        # Without these a column of a row group, gigabytes of audio, is read before its first row.
        return ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"{file}: truncated or no Parquet file ({reason}): copy it again")
