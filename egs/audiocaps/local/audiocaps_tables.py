"""The captions of AudioCaps, from CSV or Parquet, and the text files of their data directory.

PART.csv has the columns audiocap_id, youtube_id, start_time and caption; a clip is YOUTUBEID_START,
ten seconds from second START on. Training clips have one caption, the others five.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pam.data.corpus import reading
from pam.data.parquet import columns, find_parquet, rows
from pam.data.scp import id_fault, one_line
from pam.errors import PamError

TASK = "ac"
COLUMNS = ("youtube_id", "start_time", "caption")
Files = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Caption:
    """`number` is AudioCaps' own id of the caption (of Parquet copies without one, the row)."""

    clip: str
    number: int
    text: str


def parquet_of(corpus: Path, part: str) -> list[Path]:
    """The Parquet files of a part: train-*.parquet, val… or validation…, test…"""
    return find_parquet(corpus, f"{part}*.parquet")


def captions_of(corpus: Path, part: str) -> list[Caption]:
    """All captions of PART.csv, or else of the Parquet files, in the order of their numbers."""
    table = corpus / f"{part}.csv"
    if table.is_file():
        entries = _csv_rows(table)
    elif files := parquet_of(corpus, part):
        table = files[0]
        extra = ["audiocap_id"] if "audiocap_id" in columns(table) else []
        entries = [(table, n, row) for n, row in enumerate(rows(files, [*COLUMNS, *extra]), 1)]
    else:
        raise PamError(f"{table}: missing, and no {part}*.parquet below: correct db.sh")
    found: dict[int, Caption] = {}
    for file, line, row in entries:
        caption = _caption(row, f"{file}:{line}", line)
        if found.setdefault(caption.number, caption) != caption:
            raise PamError(f"{file}:{line}: audiocap_id {caption.number} is there twice: mend it")
    if not found:
        raise PamError(f"{table}: no captions in it: fetch it again")
    return [found[number] for number in sorted(found)]


def _csv_rows(table: Path) -> list[tuple[Path, int, dict[str, str]]]:
    with reading(table), table.open(encoding="utf-8-sig", newline="") as file:  # a BOM
        reader = csv.DictReader(file)
        wanted = {"audiocap_id", *COLUMNS}
        if lacking := wanted - {*(reader.fieldnames or [])}:
            raise PamError(f"{table}: no column {min(lacking)!r}: use AudioCaps' own file")
        return [(table, reader.line_num, row) for row in reader]


def _caption(row: Mapping[str, Any], where: str, line: int) -> Caption:
    try:
        clip = f"{row['youtube_id']}_{int(float(row['start_time']))}"
        number = int(row.get("audiocap_id", line))
    except (TypeError, ValueError, OverflowError) as error:
        raise PamError(f"{where}: {dict(row)}: not a caption ({error}): mend the line") from error
    text = one_line(str(row["caption"] or ""))
    if not text or not row["youtube_id"]:
        raise PamError(f"{where}: no caption or no youtube_id: mend the line")
    if id_fault(clip):  # it becomes the name of a file
        raise PamError(f"{where}: youtube_id {row['youtube_id']!r} cannot be a name: mend the line")
    return Caption(clip, number, text)


def each_caption(name: str, captions: Sequence[Caption], audio: Mapping[str, Path]) -> Files:
    """An utterance for every caption, as training uses them."""
    found = _empty()
    for caption in captions:
        speaker = f"{name}-{caption.clip}"
        _add(found, f"{speaker}-{caption.number:06d}", speaker, caption.text, audio[caption.clip])
    return found


def each_clip(name: str, captions: Sequence[Caption], audio: Mapping[str, Path]) -> Files:
    """An utterance for every clip; its captions are text, text_ref2, text_ref3 …"""
    found = _empty()
    for caption in captions:
        utt = f"{name}-{caption.clip}"
        if utt not in found["text"]:
            _add(found, utt, utt, caption.text, audio[caption.clip])
            continue
        number = 2
        while utt in found.setdefault(f"text_ref{number}", {}):
            number += 1
        found[f"text_ref{number}"][utt] = caption.text
    return found


def _empty() -> Files:
    return {"wav.scp": {}, "text": {}, "utt2spk": {}, "utt2task": {}}


def _add(files: Files, utt: str, speaker: str, text: str, audio: Path) -> None:
    entry = {"wav.scp": str(audio), "text": text, "utt2spk": speaker, "utt2task": TASK}
    for name, value in entry.items():
        files[name][utt] = value
