"""First half of a dump: every utterance becomes 16 kHz mono audio, or a reason why not.

Audio that is mono at 16 kHz already (FLAC or WAV) is referred to where it lies, a segment of it as
a concatenation of one piece, and a concatenation stays the entry it is; everything else is written
to raw/SET/audio/TASK/UTT.flac. A folder for each task: processes that make files in the same one
wait, spinning, for its lock.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pam.atomic import atomic_path, write_text
from pam.data.audio import is_native, num_samples, read_audio, write_flac
from pam.data.concat import concat_entry, is_concat
from pam.data.datadir import DataDir, check
from pam.data.scp import Problem
from pam.data.workers import run_tasks
from pam.errors import UserError
from pam.log import get_logger, progress

REFERABLE = ("FLAC", "WAV", "WAVEX")
UTTERANCES_PER_TASK = 64
logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Clip:
    """An utterance whose entry of wav.scp, `path`, gives `samples` samples at 16 kHz.

    `note` says what was found and mended in its audio file.
    """

    utt: str
    path: str
    samples: int
    note: str = ""


@dataclass(frozen=True)
class Source:
    """An utterance as the data directory names it, and the FLAC file it may become."""

    utt: str
    path: str
    start: float | None
    end: float | None
    flac: Path


@dataclass
class Scan:
    clips: list[Clip]
    bad: dict[str, str]


def read_data(path: Path) -> tuple[DataDir, dict[str, str]]:
    """The directory without utterances whose transcript is empty, and those; other faults raise."""
    data, problems = check(path)
    errors = [problem for problem in problems if not problem.warning]
    bad = {_first(p): "empty transcript" for p in errors if _is_empty_text(p)}
    others = [problem for problem in errors if _first(problem) not in bad]
    if others:
        raise UserError(f"{others[0]} (of {len(others)}; run utils/validate_data_dir.sh {path})")
    return data, bad


def _is_empty_text(problem: Problem) -> bool:
    return Path(problem.file).name == "text" and problem.rule == "empty value"


def _first(problem: Problem) -> str:
    return (problem.value.split() or [""])[0]


def scan(data: DataDir, out: Path, nj: int) -> Scan:
    """Check and convert all audio of `data` into `out`; kept in out/scan.jsonl, so done once."""
    utterances = data.utterances
    digest = digest_of(json.dumps((utt, *data.audio(utt))) for utt in utterances)
    done = out / "scan.jsonl"
    if not _same(out / ".digest", digest):
        done.unlink(missing_ok=True)
        shutil.rmtree(out / "audio", ignore_errors=True)
        write_text(out / ".digest", digest)
    if done.is_file():
        return _read(done)
    starts = range(0, len(utterances), UTTERANCES_PER_TASK)
    tasks = [(n, utterances[at : at + UTTERANCES_PER_TASK]) for n, at in enumerate(starts)]
    result, notes = Scan([], {}), {}
    converter = Converter(data, out / "audio")
    for clips, bad in progress(run_tasks(converter, tasks, nj), len(tasks), "audio"):
        # Ids that come back from another process are copies: keep those of the tables.
        result.clips += [Clip(sys.intern(clip.utt), clip.path, clip.samples) for clip in clips]
        result.bad |= bad
        notes |= {clip.utt: clip.note for clip in clips if clip.note}
    _report_notes(out / "audio_notes", notes)
    result.clips.sort(key=lambda clip: clip.utt)
    _write(done, result)
    return result


def _report_notes(file: Path, notes: dict[str, str]) -> None:
    """List what was found and mended; one line of the log counts it."""
    write_text(file, "".join(f"{utt}\t{notes[utt]}\n" for utt in sorted(notes)))
    if notes:
        first = notes[min(notes)]
        logger.warning("%s: %d utterances are read all the same (%s)", file, len(notes), first)


def _write(file: Path, scan: Scan) -> None:
    """A line an utterance, not one document: there may be 300,000."""
    with atomic_path(file) as part, part.open("w", encoding="utf-8") as lines:
        for clip in scan.clips:
            lines.write(json.dumps([clip.utt, clip.path, clip.samples]) + "\n")
        for utt, reason in scan.bad.items():
            lines.write(json.dumps([utt, reason]) + "\n")


def _read(file: Path) -> Scan:
    scan = Scan([], {})
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            utt, *rest = json.loads(line)
            if len(rest) == 1:
                scan.bad[utt] = rest[0]
            else:
                scan.clips.append(Clip(sys.intern(utt), *rest))
    return scan


class Converter:
    """Converts utterances of a set; a plain object that forked workers inherit with its tables."""

    def __init__(self, data: DataDir, folder: Path):
        self.data, self.folder = data, folder

    def __call__(self, task: tuple[int, Sequence[str]]) -> tuple[list[Clip], dict[str, str]]:
        """(number of the task, its utterances) → good ones, {bad one: reason}."""
        number, utterances = task
        folder, clips, bad = self.folder / f"{number:05d}", [], {}
        for utt in utterances:
            try:
                clips.append(convert(Source(utt, *self.data.audio(utt), folder / f"{utt}.flac")))
            except UserError as error:
                if "cannot be written" in str(error):  # our disk, not the user's audio
                    raise
                bad[utt] = str(error)
        return clips, bad


def convert(source: Source) -> Clip:
    """Check one utterance's audio, write it as FLAC where needed. Raises UserError."""
    if source.flac.is_file():  # by an earlier run that was stopped
        return Clip(source.utt, str(source.flac.absolute()), num_samples(source.flac))
    reading = read_audio(source.path, source.start, source.end)
    if is_concat(source.path):
        path = source.path
    elif is_native(source.path, REFERABLE):
        path = _entry(source)
    else:
        write_flac(source.flac, reading.samples)
        path = str(source.flac.absolute())
    return Clip(source.utt, path, len(reading.samples), "; ".join(reading.notes))


def _entry(source: Source) -> str:
    if source.start is None:
        return str(Path(source.path).absolute())
    return concat_entry([(source.path, source.start, source.end)])


def digest_of(items: Iterable[str]) -> str:
    """sha256 of "[item, item …]", which is not held in memory."""
    digest = hashlib.sha256(b"[")
    for place, item in enumerate(items):
        digest.update(f"{', ' if place else ''}{item}".encode())
    digest.update(b"]")
    return digest.hexdigest()


def _same(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == text
