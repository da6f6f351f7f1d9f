"""A local copy of the Hugging Face data set edinburghcstr/ami (ihm): Parquet or Arrow files.

First the rows are read without audio, then the audio of the chosen utterances. Audio is written
once, as it is stored.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ami_utterances import EMPTY, NO_AUDIO, NO_TIME, Utterance, clean

from pam.data.parquet import audio_file, find_audio, find_parquet, numbered_rows
from pam.errors import PamError

SETS = {"train": "train", "validation": "dev", "test": "test"}
# What the other fields say too: meeting, headset, speaker, begin and end in hundredths of a second.
AUDIO_ID = re.compile(r"AMI_([^_]+)_H(\d\d)_([^_]+)_(\d{7})_(\d{7})")
Faults = dict[str, list[str]]


@dataclass(frozen=True)
class Row:
    utterance: Utterance
    file: Path
    number: int


def files_in(folder: Path) -> dict[str, list[Path]]:
    """Set → its files, by the split's name in their paths; files of other microphones are not."""
    found: dict[str, list[Path]] = defaultdict(list)
    for suffix in ("parquet", "arrow"):
        for file in find_parquet(folder, f"*.{suffix}"):
            words = re.split(r"[^a-z]+", str(file.relative_to(folder)).lower())
            splits = [split for split in SETS if split in words]
            if len(splits) == 1 and not {"sdm", "mdm"} & {*words}:
                found[SETS[splits[0]]].append(file)
        if found:
            return dict(found)
    raise PamError(
        f"{folder}: no *.parquet or *.arrow files of train, validation and test: AMI_PARQUET names "
        "a copy of the data set edinburghcstr/ami, config ihm"
    )


def read_rows(files: Collection[Path], faults: Faults) -> Iterator[Row]:
    """Everything but the audio."""
    for file in files:
        for number, fields in numbered_rows(file, ["audio_id", "text"]):
            if utterance := _utterance(fields, file, number, faults):
                yield Row(utterance, file, number)


def _utterance(
    fields: Mapping[str, Any], file: Path, number: int, faults: Faults
) -> Utterance | None:
    named = AUDIO_ID.fullmatch(fields["audio_id"] or "")
    if not named:
        raise PamError(
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
        if done := find_audio(folder, row.utterance.id):
            paths[row.utterance.id] = str(done)
        else:
            by_file[row.file][row.number] = row.utterance.id
    for file, missing in by_file.items():
        for number, fields in numbered_rows(file, ["audio"], missing):
            utt = missing[number]
            if audio := audio_file(fields["audio"], folder, utt):
                paths[utt] = str(audio)
            else:
                faults[NO_AUDIO].append(f"{utt} (row {number} of {file})")
    return paths
