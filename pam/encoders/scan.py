"""First half of a dump: every utterance becomes a 16 kHz mono file, or a reason why not.

Audio that is mono at 16 kHz already (FLAC or WAV, no segments) is referred to where it lies, and a
concatenation stays the entry it is; everything else is written to raw/SET/audio/UTT.flac.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import soundfile

from pam.atomic import write_json, write_text
from pam.data.audio import SAMPLE_RATE, load_audio, num_samples, write_flac
from pam.data.concat import is_concat
from pam.data.datadir import DataDir, check
from pam.data.scp import Problem
from pam.encoders.workers import run_tasks
from pam.errors import UserError
from pam.log import progress

REFERABLE = ("FLAC", "WAV", "WAVEX")
UTTERANCES_PER_TASK = 64


@dataclass(frozen=True)
class Clip:
    """An utterance whose file, or concatenation, at `path` gives `samples` samples at 16 kHz."""

    utt: str
    path: str
    samples: int


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
    """Check and convert all audio of `data` into `out`; kept in out/scan.json, so done once."""
    digest = _digest(data)
    done = out / "scan.json"
    if not _same(out / ".digest", digest):
        done.unlink(missing_ok=True)
        shutil.rmtree(out / "audio", ignore_errors=True)
        write_text(out / ".digest", digest)
    if not done.is_file():
        sources = [Source(u, *data.audio(u), out / "audio" / f"{u}.flac") for u in data.utterances]
        write_json(done, asdict(_scan(sources, nj)))
    found = json.loads(done.read_text(encoding="utf-8"))
    return Scan([Clip(**clip) for clip in found["clips"]], found["bad"])


def _scan(sources: Sequence[Source], nj: int) -> Scan:
    starts = range(0, len(sources), UTTERANCES_PER_TASK)
    tasks = [sources[start : start + UTTERANCES_PER_TASK] for start in starts]
    result = Scan([], {})
    for clips, bad in progress(run_tasks(_convert_all, tasks, nj), len(tasks), "audio"):
        result.clips += clips
        result.bad |= bad
    result.clips.sort(key=lambda clip: clip.utt)
    return result


def _convert_all(sources: Sequence[Source]) -> tuple[list[Clip], dict[str, str]]:
    clips, bad = [], {}
    for source in sources:
        try:
            clips.append(convert(source))
        except UserError as error:
            if "cannot be written" in str(error):  # our disk, not the user's audio
                raise
            bad[source.utt] = str(error)
    return clips, bad


def convert(source: Source) -> Clip:
    """Check one utterance's audio, write it as FLAC where needed. Raises UserError."""
    if source.flac.is_file():  # by an earlier run that was stopped
        return Clip(source.utt, str(source.flac.absolute()), num_samples(source.flac))
    audio = load_audio(source.path, source.start, source.end)
    if is_concat(source.path):
        return Clip(source.utt, source.path, len(audio))
    if source.start is None and _is_referable(source.path):
        return Clip(source.utt, str(Path(source.path).absolute()), len(audio))
    write_flac(source.flac, audio)
    return Clip(source.utt, str(source.flac.absolute()), len(audio))


def _is_referable(path: str) -> bool:
    info = soundfile.info(path)
    return info.format in REFERABLE and (info.samplerate, info.channels) == (SAMPLE_RATE, 1)


def _digest(data: DataDir) -> str:
    audio = [(utt, *data.audio(utt)) for utt in data.utterances]
    return hashlib.sha256(json.dumps(audio).encode()).hexdigest()


def _same(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == text
