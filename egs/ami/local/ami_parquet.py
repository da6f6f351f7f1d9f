"""A local copy of the Hugging Face data set edinburghcstr/ami (ihm): Parquet or Arrow files.

Read in batches: tables first, without audio, then the audio of the utterances that are wanted.
Audio is written as it is stored, once.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ami_utterances import EMPTY, NO_AUDIO, NO_TIME, Utterance, clean

from pam.atomic import atomic_path
from pam.data.disk import writing
from pam.errors import UserError

if TYPE_CHECKING:
    from pyarrow import RecordBatch

SETS = {"train": "train", "validation": "dev", "test": "test"}
ROWS = 32  # utterances of a batch: about 3 MB of audio
BUFFER_BYTES = 1 << 20
SUFFIXES = {b"fLaC": ".flac", b"RIFF": ".wav", b"OggS": ".ogg"}
# What the other fields say too: meeting, headset, speaker, begin and end in hundredths of a second.
AUDIO_ID = re.compile(r"AMI_([^_]+)_H(\d\d)_([^_]+)_(\d{7})_(\d{7})")
Faults = dict[str, list[str]]
Wanted = Callable[[int, int], bool]  # whether rows from … up to … are


@dataclass(frozen=True)
class Row:
    utterance: Utterance
    file: Path
    number: int


def files_in(folder: Path) -> dict[str, list[Path]]:
    """Set → its files, by the split's name in their paths; files of other microphones are not."""
    found: dict[str, list[Path]] = defaultdict(list)
    for suffix in ("parquet", "arrow"):
        for file in sorted(folder.rglob(f"*.{suffix}")):
            words = re.split(r"[^a-z]+", str(file.relative_to(folder)).lower())
            splits = [split for split in SETS if split in words]
            if len(splits) == 1 and not {"sdm", "mdm"} & {*words}:
                found[SETS[splits[0]]].append(file)
        if found:
            return dict(found)
    raise UserError(
        f"{folder}: no *.parquet or *.arrow files of train, validation and test: AMI_PARQUET names "
        "a copy of the data set edinburghcstr/ami, config ihm"
    )


def read_rows(files: Collection[Path], faults: Faults) -> Iterator[Row]:
    """Everything but the audio."""
    for file in files:
        for first, batch in batches(file, ["audio_id", "text"]):
            for number, fields in enumerate(batch.to_pylist(), start=first):
                if utterance := _utterance(fields, file, number, faults):
                    yield Row(utterance, file, number)


def _utterance(
    fields: Mapping[str, Any], file: Path, number: int, faults: Faults
) -> Utterance | None:
    named = AUDIO_ID.fullmatch(fields["audio_id"] or "")
    if not named:
        raise UserError(
            f"{file}: row {number}: audio_id {fields['audio_id']!r}, expected one like "
            "AMI_EN2001a_H00_MEE068_0000557_0000594: use the config ihm of the data set"
        )
    meeting, channel, speaker, start, end = named.groups()
    text = clean(fields["text"] or "")
    utterance = Utterance(meeting, int(channel), speaker, int(start) / 100, int(end) / 100, text)
    if not text:
        faults[EMPTY].append(utterance.id)
    elif end <= start:
        faults[NO_TIME].append(utterance.id)
    else:
        return utterance
    return None


def write_audio(rows: Collection[Row], folder: Path, faults: Faults) -> dict[str, str]:
    """Utterance → path of its audio, written to `folder`/ID.flac or .wav unless it is there."""
    paths: dict[str, str] = {}
    by_file: dict[Path, dict[int, str]] = defaultdict(dict)
    for row in rows:
        there = [folder / f"{row.utterance.id}{suffix}" for suffix in SUFFIXES.values()]
        if done := next((file for file in there if file.is_file()), None):
            paths[row.utterance.id] = str(done.absolute())
        else:
            by_file[row.file][row.number] = row.utterance.id
    for file, missing in by_file.items():
        for number, audio in _audio(file, missing):
            if path := _write(audio or {}, folder / missing[number]):
                paths[missing[number]] = path
            else:
                faults[NO_AUDIO].append(f"{missing[number]} (row {number} of {file})")
    return paths


def _audio(file: Path, numbers: Collection[int]) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(number, the field `audio`) of these rows."""
    ordered = sorted(numbers)

    def wanted(first: int, end: int) -> bool:
        return bisect_left(ordered, first) < bisect_left(ordered, end)

    for first, batch in batches(file, ["audio"], wanted):
        for place in range(batch.num_rows):
            if first + place in numbers:
                yield first + place, batch.slice(place, 1).to_pylist()[0]["audio"]


def _write(audio: Mapping[str, Any], stem: Path) -> str | None:
    content, path = audio.get("bytes"), audio.get("path")
    if not content:
        return str(path) if path and Path(path).is_absolute() and Path(path).is_file() else None
    if content[:4] not in SUFFIXES:
        return None
    final = stem.with_name(stem.name + SUFFIXES[content[:4]])
    with writing(final), atomic_path(final) as part:
        part.write_bytes(content)
    return str(final.absolute())


def batches(
    file: Path, columns: Collection[str], wanted: Wanted = lambda first, end: True
) -> Iterator[tuple[int, "RecordBatch"]]:
    """(number of its first row, batch of at most ROWS); groups not `wanted` are skipped."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UserError(
            f"{file}: reading it needs pyarrow: install it with `python -m pip install pyarrow` in "
            "the recipe's environment, or use the corpus itself (AMI in db.sh)"
        ) from error
    try:
        read = _parquet_batches if file.suffix == ".parquet" else _arrow_batches
        yield from read(file, list(columns), wanted)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: damaged ({reason}): fetch the data set again") from error


def _parquet_batches(
    file: Path, columns: list[str], wanted: Wanted
) -> Iterator[tuple[int, "RecordBatch"]]:
    from pyarrow.parquet import ParquetFile

    # Unbuffered, the column of a whole row group, audio and all, is read before its first row.
    with ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as table:
        _check_columns(file, columns, table.schema_arrow.names)
        first = 0
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if wanted(first, first + rows):
                at = first
                for batch in table.iter_batches(ROWS, row_groups=[group], columns=columns):
                    yield at, batch
                    at += batch.num_rows
            first += rows


def _arrow_batches(
    file: Path, columns: list[str], wanted: Wanted
) -> Iterator[tuple[int, "RecordBatch"]]:
    import pyarrow as pa

    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as reader:
        _check_columns(file, columns, reader.schema.names)
        first = 0
        for batch in reader:
            if wanted(first, first + batch.num_rows):
                for offset in range(0, batch.num_rows, ROWS):
                    yield first + offset, batch.slice(offset, ROWS).select(columns)
            first += batch.num_rows


def _check_columns(file: Path, columns: list[str], there: list[str]) -> None:
    if missing := [name for name in columns if name not in there]:
        raise UserError(
            f"{file}: no column {missing[0]!r}, it has {', '.join(there)}: is it edinburghcstr/ami?"
        )
