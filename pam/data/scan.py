"""First half of a dump: every utterance becomes 16 kHz mono audio, or gets a reason for rejection.

Files that are mono at 16 kHz already (FLAC or WAV) are not copied; wav.scp refers to them. A
segment of such a file becomes a concatenation of one piece, unless each access to it would read all
of a large recording. Concatenations stay as they are. All other audio is written to
raw/SET/audio/TASK/UTT.flac. Each task has its own folder because processes that create files in one
folder wait for its lock.

scan.jsonl keeps the results, so that no work is repeated. An utterance is checked again if its
entry has changed, or the size or the time of one of its files, for example after a bad file was
replaced. A bad one is checked again also after its files got other rights, and with another
libsndfile. What this machine cannot read now ends the scan: it is not bad.
"""

import functools
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import soundfile

from pam.atomic import atomic_path, write_text
from pam.data.audio import is_native, num_samples, read_audio, write_flac
from pam.data.concat import concat_entry, files_of, is_concat
from pam.data.datadir import DataDir, check, first_of
from pam.data.opening import open_audio
from pam.data.scp import Problem
from pam.data.shards import file_of, is_member, open_member
from pam.data.workers import run_tasks
from pam.errors import MachineError, PamError
from pam.log import get_logger, progress

REFERABLE = ("FLAC", "WAV", "WAVEX")
LARGE_BYTES = 1 << 20  # so much is read in a millisecond, the time that a segment takes to decode
UTTERANCES_PER_TASK = 64
logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Clip:
    """A good utterance: `path` is its entry of wav.scp, with `samples` samples at 16 kHz.

    `note` describes faults of its audio file that were repaired.
    """

    utt: str
    path: str
    samples: int
    note: str = ""


@dataclass(frozen=True)
class Source:
    """An utterance's entry in the data directory, and the FLAC file to write if it is converted."""

    utt: str
    path: str
    start: float | None
    end: float | None
    flac: Path


@dataclass
class Scan:
    """Good clips and bad utterances. `keys` identify their entries and files (`key_of`)."""

    clips: list[Clip]
    bad: dict[str, str]
    keys: dict[str, str] = field(default_factory=dict)


def read_data(path: Path) -> tuple[DataDir, dict[str, str]]:
    """The directory without utterances that have an empty transcript, and these utterances.

    `PamError` for all other faults.
    """
    data, problems = check(path)
    errors = [problem for problem in problems if not problem.warning]
    bad = {_first(p): "empty transcript" for p in errors if _is_empty_text(p)}
    others = [problem for problem in errors if _first(problem) not in bad]
    if others:
        raise first_of(path, data, others)
    return data, bad


def _is_empty_text(problem: Problem) -> bool:
    return Path(problem.file).name == "text" and problem.rule == "empty value"


def _first(problem: Problem) -> str:
    return (problem.value.split() or [""])[0]


def scan(data: DataDir, out: Path, nj: int) -> Scan:
    """Check and convert all audio of `data` into `out`; results in out/scan.jsonl are reused."""
    utterances = data.utterances
    known, keys = _resume(data, out), {utt: key_of(*data.audio(utt)) for utt in utterances}
    result = _what_holds(known, data, keys, out / "audio")
    todo = [utt for utt in utterances if utt not in result.keys]
    starts = range(0, len(todo), UTTERANCES_PER_TASK)
    tasks = [(n, todo[at : at + UTTERANCES_PER_TASK]) for n, at in enumerate(starts)]
    converter = Converter(data, out / "audio", resumes=not known.keys)
    for clips, bad in progress(run_tasks(converter, tasks, nj), len(tasks), "audio"):
        # Ids from another process are copies, which take memory: keep those of the data directory.
        result.clips += [replace(clip, utt=sys.intern(clip.utt)) for clip in clips]
        result.bad |= bad
    result.clips.sort(key=lambda clip: clip.utt)
    _report_notes(out / "audio_notes", {clip.utt: clip.note for clip in result.clips if clip.note})
    result.keys |= {utt: keys[utt] for utt in todo}
    result.keys |= {utt: _verdict_key(data, utt, keys[utt]) for utt in result.bad}
    if tasks or known.keys != result.keys:
        _write(out / "scan.jsonl", result)
    return result


def _report_notes(file: Path, notes: dict[str, str]) -> None:
    """List the repaired faults in `file`; one log line gives their number."""
    write_text(file, "".join(f"{utt}\t{notes[utt]}\n" for utt in sorted(notes)))
    if notes:
        first = notes[min(notes)]
        logger.warning(
            "%s: %d utterances had faults and are read anyway (%s)", file, len(notes), first
        )


def key_of(path: str, start: float | None, end: float | None) -> str:
    """Identifies an utterance's source: its entry, and the size and time of its existing files."""
    found = _stats_of(path)
    entry = digest_of([json.dumps([path, start, end])])[:12]
    if None in found:
        return f"{entry}-"
    return f"{entry}-{digest_of(repr((one.st_size, one.st_mtime_ns)) for one in found)[:12]}"


def _verdict_key(data: DataDir, utt: str, key: str) -> str:
    """The key of a bad utterance: its own, and what may cure it though its files stay as they are:
    other rights, which change the files' ctime, and another decoder."""
    changes = [repr(one and one.st_ctime_ns) for one in _stats_of(data.audio(utt)[0])]
    return f"{key}-{digest_of([*changes, soundfile.__libsndfile_version__])[:12]}"


def _stats_of(path: str) -> list[os.stat_result | None]:
    """Of each file of an entry; None: it is not there."""
    try:
        return [_stat(file) for file in files_of(path)]
    except PamError:  # an invalid entry is reported when it is converted
        return []


@functools.lru_cache(maxsize=1024)  # the segments of a recording
def _stat(path: str) -> os.stat_result | None:
    try:
        return file_of(path).stat()
    except OSError:
        return None


def _resume(data: DataDir, out: Path) -> Scan:
    """The valid results of an earlier scan. A killed scan's files are used for equal text files."""
    _stat.cache_clear()
    digest = digest_of(json.dumps((utt, *data.audio(utt))) for utt in data.utterances)
    is_complete, same = (out / "scan.jsonl").is_file(), _same(out / ".digest", digest)
    if not same and not is_complete:
        shutil.rmtree(out / "audio", ignore_errors=True)
    if not same:
        write_text(out / ".digest", digest)
    return _read(out / "scan.jsonl") if is_complete else Scan([], {})


def _what_holds(known: Scan, data: DataDir, keys: Mapping[str, str], audio: Path) -> Scan:
    """The results of an earlier scan that are still valid; the other FLAC files are removed."""
    held = Scan([], {})
    for clip in known.clips:
        then, now = known.keys[clip.utt], keys.get(clip.utt, "")
        is_copy = audio.absolute() in Path(clip.path).parents
        # A copy is good though its source is away, on a disk that is not mounted.
        if then == now or (is_copy and now.endswith("-") and then.startswith(now)):
            held.clips.append(clip)
            held.keys[clip.utt] = then
        elif is_copy:
            Path(clip.path).unlink(missing_ok=True)
    for utt, reason in known.bad.items():
        if utt in keys and known.keys[utt] == _verdict_key(data, utt, keys[utt]):
            held.bad[utt], held.keys[utt] = reason, known.keys[utt]
    return held


def _write(file: Path, scan: Scan) -> None:
    """One line per utterance, not one JSON document: there may be 300,000."""
    with atomic_path(file) as part, part.open("w", encoding="utf-8") as lines:
        for clip in scan.clips:
            note = [clip.note] if clip.note else []
            entry = [clip.utt, scan.keys[clip.utt], clip.path, clip.samples, *note]
            lines.write(json.dumps(entry) + "\n")
        for utt, reason in scan.bad.items():
            lines.write(json.dumps([utt, scan.keys[utt], reason]) + "\n")


def _read(file: Path) -> Scan:
    scan = Scan([], {})
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            utt, key, *rest = json.loads(line)
            utt = sys.intern(utt)
            scan.keys[utt] = key
            if len(rest) == 1:
                scan.bad[utt] = rest[0]
            elif rest:
                scan.clips.append(Clip(utt, *rest))
    return scan


class Converter:
    """Converts utterances of a set. Forked workers inherit the object with its data."""

    def __init__(self, data: DataDir, folder: Path, resumes: bool = True):
        self.data, self.folder, self.resumes = data, folder, resumes

    def __call__(self, task: tuple[int, Sequence[str]]) -> tuple[list[Clip], dict[str, str]]:
        """(number of the work item, its utterances) → good ones, {bad one: reason}."""
        number, utterances = task
        folder, clips, bad = self.folder / f"{number:05d}", [], {}
        for utt in utterances:
            source = Source(utt, *self.data.audio(utt), folder / f"{utt}.flac")
            if not self.resumes:
                source.flac.unlink(missing_ok=True)
            try:
                clips.append(convert(source))
            except PamError as error:
                if isinstance(error, MachineError) or "cannot be written" in str(error):
                    raise  # our machine, not the user's audio
                bad[utt] = str(error)
        return clips, bad


def convert(source: Source) -> Clip:
    """Check one utterance's audio and write it as FLAC if needed. `PamError` if it is bad."""
    if _is_copied(source):  # by an earlier run that was killed
        return Clip(source.utt, str(source.flac.absolute()), num_samples(source.flac))
    reading = read_audio(source.path, source.start, source.end)
    notes = list(reading.notes)
    if is_concat(source.path):
        path = source.path
    elif is_native(source.path, REFERABLE) and not _is_read_whole(source):
        path = _entry(source)
    else:
        time = file_of(source.path).stat().st_mtime_ns
        write_flac(source.flac, reading.samples, notes.extend)
        os.utime(source.flac, ns=(time, time))
        path = str(source.flac.absolute())
    return Clip(source.utt, path, len(reading.samples), "; ".join(notes))


def _is_copied(source: Source) -> bool:
    """Whether the FLAC file was made from the current source: both have the same time."""
    if not source.flac.is_file():
        return False
    file = file_of(source.path)
    return file.is_file() and file.stat().st_mtime_ns == source.flac.stat().st_mtime_ns


def _is_read_whole(source: Source) -> bool:
    """Whether each access to a segment reads all of a large recording: a FLAC file is searched for
    further ones that were joined to it (`flac.links`), and a member of a shard is copied."""
    if source.start is None:
        return False
    if is_member(source.path):
        return open_member(source.path).size > LARGE_BYTES
    is_flac = open_audio(source.path).format == "FLAC"
    return is_flac and Path(source.path).stat().st_size > LARGE_BYTES


def _entry(source: Source) -> str:
    if source.start is None:
        return str(Path(source.path).absolute())
    return concat_entry([(source.path, source.start, source.end)])


def digest_of(items: Iterable[str]) -> str:
    """sha256 of "[item, item …]", computed without holding the whole text in memory."""
    digest = hashlib.sha256(b"[")
    for place, item in enumerate(items):
        digest.update(f"{', ' if place else ''}{item}".encode())
    digest.update(b"]")
    return digest.hexdigest()


def _same(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == text
