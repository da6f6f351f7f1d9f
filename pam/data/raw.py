"""Stage 2 for the audio of a set: raw/SET, a data directory of 16 kHz files.

    wav.scp and the other files of the good utterances except those of features, utt2num_samples,
    bad_utts (utterance, tab, reason), dropped_utts (utterance, tab, seconds, tab, reason),
    audio_notes (utterance, tab, faults found and repaired),
    scan.jsonl, audio/TASK/, padded/ (clips of a test set that are shorter than MIN_SAMPLES)

Training with online encoders needs only this (`dump_audio`). No encoder is loaded.
"""

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pam.atomic import write_text
from pam.data.audio import load_audio, write_flac
from pam.data.datadir import DataDir
from pam.data.scan import Clip, Scan, read_data, scan
from pam.errors import PamError
from pam.lock import alone
from pam.log import get_logger
from pam.rate import SAMPLE_RATE

MIN_SAMPLES = SAMPLE_RATE // 10  # every family of encoders accepts this much
logger = get_logger(__name__)


@dataclass(frozen=True)
class LengthLimit:
    """Keep utterances of `least` to `most` seconds. With `drops` false, as for a test set, all are
    kept: those outside are only counted, and those too short for an encoder are padded."""

    least: float = 0.0
    most: float = math.inf
    drops: bool = True

    def reason(self, seconds: float) -> str | None:
        """Why an utterance of this length is outside the limits; None if it is inside."""
        if seconds < self.least:
            return f"shorter than --min_seconds {self.least:g}"
        return f"longer than --max_seconds {self.most:g}" if seconds > self.most else None


NO_LIMIT = LengthLimit()


def dump_audio(
    data_dir: str | Path,
    out: str | Path,
    nj: int = 1,
    max_bad: float = 0.005,
    limit: LengthLimit = NO_LIMIT,
) -> dict[str, str]:
    """Dump the audio of the set at `data_dir` to `out` (…/raw/SET); returns the bad utterances.

    PamError if more than the share `max_bad` of the utterances are bad, and for other faults that
    the user can correct. Finished work is kept.
    """
    out = Path(out)
    with alone(out, "dump of this set"):
        data, bad = read_data(Path(data_dir))
        found = of_length(limit, scan(data, out, nj), out)
        bad |= found.bad | too_short(data, found.clips)
        report_bad(out, bad, len(data["text"].keys() | bad.keys()), max_bad)
        write_raw(data, out, [clip for clip in found.clips if clip.utt not in bad])
    return bad


def too_short(data: DataDir, clips: Iterable[Clip]) -> dict[str, str]:
    """The clips below `MIN_SAMPLES`, and why. The encoders are not asked: sets of all scales have
    the same utterances, and so share the states of the encoders that they share."""
    least = f"{MIN_SAMPLES / SAMPLE_RATE:g} s, {MIN_SAMPLES} samples, are needed"
    short = [clip for clip in clips if clip.samples < MIN_SAMPLES]
    return {clip.utt: f"{_what_is(data, clip)} are too short: {least}" for clip in short}


def _what_is(data: DataDir, clip: Clip) -> str:
    """Beginning of a message about a clip: the user's file and its number of samples."""
    path, start, end = data.audio(clip.utt)
    part = "" if start is None else f" from {start:g} to {end:g} s"
    return f"{path}{part}: {clip.samples} samples"


def of_length(limit: LengthLimit, found: Scan, out: Path) -> Scan:
    """The clips within the limit. A test set keeps all; its shortest ones are padded."""
    kept = within(limit, found, out)
    return kept if limit.drops else padded(kept, out)


def padded(found: Scan, out: Path) -> Scan:
    """Clips of less than `MIN_SAMPLES` get silence at their end, as files of `out`/padded.

    A published test set stays complete: AMI's has 23 utterances of less than 0.1 s.
    """
    folder = out / "padded"
    shutil.rmtree(folder, ignore_errors=True)
    clips = [_padded(clip, folder) if clip.samples < MIN_SAMPLES else clip for clip in found.clips]
    if count := sum(clip.samples < MIN_SAMPLES for clip in found.clips):
        what = "%s: %d utterances are shorter than %g s: padded with silence"
        logger.info(what, out.name, count, MIN_SAMPLES / SAMPLE_RATE)
    return replace(found, clips=clips)


def _padded(clip: Clip, folder: Path) -> Clip:
    samples, flac = load_audio(clip.path), folder / f"{clip.utt}.flac"
    write_flac(flac, np.pad(samples, (0, MIN_SAMPLES - len(samples))))
    return replace(clip, path=str(flac.absolute()), samples=MIN_SAMPLES)


def within(limit: LengthLimit, found: Scan, out: Path) -> Scan:
    """The clips within the limit; the others are counted and listed in dropped_utts."""
    outside: dict[str, tuple[float, str]] = {}
    for clip in found.clips:
        seconds = clip.samples / SAMPLE_RATE
        if reason := limit.reason(seconds):
            outside[clip.utt] = seconds, reason
    dropped = outside if limit.drops else {}
    lines = [f"{utt}\t{seconds:.3f}\t{why}\n" for utt, (seconds, why) in sorted(dropped.items())]
    write_text(out / "dropped_utts", "".join(lines))
    if not outside:
        return found
    what = f"{out.name}: {len(outside)} of {len(found.clips)} utterances"
    if not dropped:
        logger.info(
            "%s are outside --min_seconds and --max_seconds: kept, since this is a test set", what
        )
        return found
    for reason in sorted({why for _, why in dropped.values()}):
        count = sum(why == reason for _, why in dropped.values())
        logger.info("%s: %d utterances are %s, dropped", out.name, count, reason)
    if len(dropped) == len(found.clips):
        utt, (seconds, reason) = min(dropped.items())
        raise PamError(
            f"{what} are dropped by their length, so none is left; the first is {utt}, "
            f"{seconds:.2f} s, {reason}: choose other limits"
        )
    logger.info("%s are dropped by their length, listed in %s", what, out / "dropped_utts")
    return Scan([clip for clip in found.clips if clip.utt not in dropped], found.bad, found.keys)


def report_bad(out: Path, bad: Mapping[str, str], total: int, max_bad: float) -> None:
    """Write bad_utts; PamError if too many utterances are bad or none is good."""
    write_text(out / "bad_utts", "".join(f"{utt}\t{bad[utt]}\n" for utt in sorted(bad)))
    if not bad:
        return
    first = min(bad)
    what = f"{out / 'bad_utts'}: {len(bad)} of {total} utterances are bad, the first is {first}"
    if len(bad) > max_bad * total or len(bad) == total:
        raise PamError(
            f"{what} ({bad[first]}): more than --max_bad {max_bad:.2%}, mend the data or raise it"
        )
    logger.warning("%s (%s)", what, bad[first])


def write_raw(data: DataDir, out: Path, clips: Sequence[Clip]) -> None:
    """Write the files of `data` for these clips; wav.scp, which marks completeness, comes last."""
    kept = data.without_features().subset([clip.utt for clip in clips]).files
    kept.pop("segments", None)
    kept["wav.scp"] = {clip.utt: clip.path for clip in clips}
    kept["utt2num_samples"] = {clip.utt: str(clip.samples) for clip in clips}
    DataDir(kept).write(out)
