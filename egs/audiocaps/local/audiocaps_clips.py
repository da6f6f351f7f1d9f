"""Find the clips, as files of a folder or bytes in Parquet files, and list the missing ones."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from audiocaps_names import KNOWN, PATTERNS, Names
from audiocaps_tables import Caption, parquet_of

from pam.atomic import write_text
from pam.data.audio import FOREIGN, stated_seconds
from pam.data.corpus import even_sample, even_sample_of_usable
from pam.data.parquet import audio_file, rows
from pam.data.search import find_files
from pam.errors import PamError
from pam.log import get_logger

READABLE = (".wav", ".flac", ".mp3", ".ogg", ".opus")  # of two files the earlier kind is taken
KINDS = READABLE + FOREIGN
MISSING = "missing_clips.log"
GONE = "no such clip: its video may be gone"
# What folders of a part are called.
FOLDERS = {"train": {"train"}, "val": {"val", "valid", "validation", "dev"}, "test": {"test"}}
LONGEST = 12.0  # seconds; a clip has ten, give or take what an encoder adds
logger = get_logger("prepare")


def find_clips(
    corpus: Path, part: str, captions: Sequence[Caption], count: int | None, out: Path
) -> tuple[dict[str, Path], dict[str, str]]:
    """{clip: file} of `count` clips (None: all) that are there, {clip: reason} of what is not.

    Files may lie anywhere below `corpus`: they are looked for first, then drawn. Without PART.csv
    they come out of the Parquet files, into `out`.
    """
    clips = sorted({caption.clip for caption in captions})
    if not (corpus / f"{part}.csv").is_file():
        return _out_of_parquet(corpus, part, clips, count, out)
    found, missing = _in_folder(corpus, part, captions)
    return {clip: found[clip] for clip in even_sample(sorted(found), count)}, missing


def _in_folder(
    corpus: Path, part: str, captions: Sequence[Caption]
) -> tuple[dict[str, Path], dict[str, str]]:
    names = Names((caption.clip, caption.number) for caption in captions)
    best: dict[str, tuple[tuple, Path]] = {}
    others = []
    for file in find_files(corpus):
        if file.suffix.lower() not in KINDS:
            continue
        named = names.find(file.stem)
        if named is None or _is_of_another_part(file.relative_to(corpus), part, named[1]):
            others.append(file)
            continue
        clip, pattern = named
        kind, rank = KINDS.index(file.suffix.lower()), PATTERNS.index(pattern)
        place = kind >= len(READABLE), rank, kind, str(file)
        best[clip] = min(best.get(clip, (place, file)), (place, file))
    found, missing = {}, {}
    for clip in sorted({caption.clip for caption in captions}):
        if clip not in best:
            missing[clip] = GONE
        elif fault := _fault(best[clip][1], PATTERNS[best[clip][0][1]]):
            missing[clip] = fault
        else:
            found[clip] = best[clip][1]
    counts = Counter(PATTERNS[place[1]] for place, _ in best.values())
    logger.info("%s: clips by the pattern of their names: %s", part, dict(counts))
    _complain_of_names(corpus, part, found, missing, others)
    return found, missing


def _is_of_another_part(file: Path, part: str, pattern: str) -> bool:
    """Whether its folder says so; a name with ID and START is sure without."""
    if "START" in pattern:
        return False
    words = {*re.split(r"[^a-z]+", str(file.parent).lower())}
    return not words & FOLDERS[part] and any(words & names for names in FOLDERS.values())


def _fault(file: Path, pattern: str) -> str | None:
    """Why the file cannot be the clip."""
    if file.suffix.lower() not in READABLE:
        return f"{file.suffix[1:]} is not read: convert it to flac with ffmpeg ({file})"
    try:
        seconds = stated_seconds(file)
    except PamError as error:  # downloads break off
        return str(error)
    if pattern in ("ID", "YID") and seconds > LONGEST:
        return f"{file} has {seconds:.0f} s: is it the whole video? cut ten seconds from START"
    return None


def _complain_of_names(
    corpus: Path, part: str, found: Mapping, missing: Mapping[str, str], others: Sequence[Path]
) -> None:
    """If hardly any clip is found, say which names are known and which others are there."""
    if len(found) >= len(missing):
        return
    gone = [clip for clip, reason in missing.items() if reason == GONE]
    example = f", as {ascii(others[0].name)[1:-1]}" if others else ""
    what = (
        f"clips are named {KNOWN}; {len(others)} audio files below {corpus} have no name of a clip "
        f"of {part}.csv{example}"
    )
    if not found and gone:
        raise PamError(
            f"{corpus}: none of the {len(missing)} clips of {part}.csv: {gone[0]}: no such clip: "
            f"{what}"
        )
    logger.warning(
        "%s: %d of %d clips found: %s", part, len(found), len(found) + len(missing), what
    )


def _out_of_parquet(
    corpus: Path, part: str, clips: Sequence[str], count: int | None, out: Path
) -> tuple[dict[str, Path], dict[str, str]]:
    files, missing = parquet_of(corpus, part), {}

    def write(wanted: Sequence[str]) -> dict[str, Path]:
        found, left = {}, set(wanted)
        for row in rows(files, ["youtube_id", "start_time", "audio"]):
            clip = f"{row['youtube_id']}_{int(float(row['start_time']))}"
            if clip in left and (file := audio_file(row["audio"], out, clip)):
                found[clip] = file
                left.remove(clip)
        missing.update(dict.fromkeys(left, GONE))
        return found

    return even_sample_of_usable(clips, count, write), missing


def write_missing(folder: Path, missing: Mapping[str, str], total: int) -> None:
    """List the missing clips in data/SET/missing_clips.log, and say how many they are."""
    lines = [f"{clip}\t{missing[clip]}\n" for clip in sorted(missing)]
    write_text(folder / MISSING, "".join(lines))
    if missing:
        where = folder / MISSING
        logger.warning("%d of %d clips are missing, listed in %s", len(missing), total, where)
