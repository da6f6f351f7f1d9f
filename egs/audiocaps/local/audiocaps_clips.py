"""Where the clips are: files of a folder, or bytes in Parquet files; and which are not there."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from audiocaps_tables import parquet_of

from pam.atomic import write_text
from pam.data.audio import FOREIGN
from pam.data.parquet import audio_file, rows
from pam.log import get_logger

READABLE = (".wav", ".flac", ".mp3", ".ogg", ".opus")  # of two files the earlier kind is taken
MISSING = "missing_clips.log"
GONE = "no such clip: its video may be gone"
logger = get_logger("prepare")


def find_clips(
    corpus: Path, part: str, wanted: Sequence[str], out: Path
) -> tuple[dict[str, Path], dict[str, str]]:
    """{clip: file} of what is there, {clip: reason} of what is not.

    Files may lie anywhere below `corpus`. Without PART.csv they come out of the Parquet files,
    into `out`.
    """
    if (corpus / f"{part}.csv").is_file():
        return _in_folder(corpus, wanted)
    return _out_of_parquet(corpus, part, set(wanted), out)


def _in_folder(corpus: Path, wanted: Sequence[str]) -> tuple[dict[str, Path], dict[str, str]]:
    files = _index(corpus)
    found, missing = {}, {}
    for clip in wanted:
        kinds = files.get(clip, {})
        readable = [kind for kind in READABLE if kind in kinds]
        if readable:
            found[clip] = kinds[readable[0]]
        elif kinds:
            file = next(iter(kinds.values()))
            missing[clip] = (
                f"{file.suffix[1:]} is not read: convert it to flac with ffmpeg ({file})"
            )
        else:
            missing[clip] = GONE
    return found, missing


def _index(corpus: Path) -> dict[str, dict[str, Path]]:
    """{name without suffix: {suffix: file}}; the first in C order of files of the same name."""
    files: dict[str, dict[str, Path]] = {}
    for folder, inner, names in os.walk(corpus, followlinks=True):
        inner.sort()
        for name in sorted(names):
            file = Path(folder, name).absolute()
            kind = file.suffix.lower()
            if kind in READABLE + FOREIGN:
                files.setdefault(file.stem, {}).setdefault(kind, file)
    return files


def _out_of_parquet(
    corpus: Path, part: str, wanted: set[str], out: Path
) -> tuple[dict[str, Path], dict[str, str]]:
    files, found = parquet_of(corpus, part), {}
    for row in rows(files, ["youtube_id", "start_time", "audio"]):
        clip = f"{row['youtube_id']}_{int(float(row['start_time']))}"
        if clip in wanted and clip not in found and (file := audio_file(row["audio"], out, clip)):
            found[clip] = file
    return found, dict.fromkeys(sorted(wanted - found.keys()), GONE)


def write_missing(folder: Path, missing: Mapping[str, str], total: int) -> None:
    """List the missing clips in data/SET/missing_clips.log, and say how many they are."""
    lines = [f"{clip}\t{missing[clip]}\n" for clip in sorted(missing)]
    write_text(folder / MISSING, "".join(lines))
    if missing:
        where = folder / MISSING
        logger.warning("%d of %d clips are missing, listed in %s", len(missing), total, where)
