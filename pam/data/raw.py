"""Audio of a set as stage 2 leaves it: raw/SET, a data directory of 16 kHz files.

    wav.scp and the other tables of the good utterances, utt2num_samples,
    bad_utts (utterance, tab, reason), audio_notes (utterance, tab, what was found and mended),
    scan.jsonl, audio/TASK/

Alone (`dump_audio`) it is what training with encoders online needs; no encoder is loaded.
"""

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pam.atomic import write_text
from pam.data.audio import SAMPLE_RATE
from pam.data.datadir import DataDir
from pam.data.scan import Clip, read_data, scan
from pam.errors import UserError
from pam.log import get_logger

MIN_SAMPLES = SAMPLE_RATE // 10  # every family of encoders accepts this much
logger = get_logger(__name__)


def dump_audio(
    data_dir: str | Path, out: str | Path, nj: int = 1, max_bad: float = 0.005
) -> dict[str, str]:
    """Dump the audio of the set at `data_dir` to `out` (…/raw/SET); returns the bad utterances.

    Raises UserError when more than the share `max_bad` of the utterances are bad, and for whatever
    else the user can mend; what is done stays done.
    """
    out = Path(out)
    with alone(out):
        data, bad = read_data(Path(data_dir))
        found = scan(data, out, nj)
        bad |= found.bad
        for clip in found.clips:
            if clip.samples < MIN_SAMPLES:
                bad[clip.utt] = f"{clip.path}: {clip.samples} samples are too short"
        report_bad(out, bad, len(data["text"].keys() | bad.keys()), max_bad)
        write_raw(data, out, [clip for clip in found.clips if clip.utt not in bad])
    return bad


def report_bad(out: Path, bad: Mapping[str, str], total: int, max_bad: float) -> None:
    """Write bad_utts; UserError where there are too many of them, or nothing else."""
    write_text(out / "bad_utts", "".join(f"{utt}\t{bad[utt]}\n" for utt in sorted(bad)))
    if not bad:
        return
    first = min(bad)
    what = f"{out / 'bad_utts'}: {len(bad)} of {total} utterances are bad, the first is {first}"
    if len(bad) > max_bad * total or len(bad) == total:
        raise UserError(
            f"{what} ({bad[first]}): more than --max_bad {max_bad:.2%}, mend the data or raise it"
        )
    logger.warning("%s (%s)", what, bad[first])


def write_raw(data: DataDir, out: Path, clips: Sequence[Clip]) -> None:
    """The tables of `data` for these clips; wav.scp, hence completeness, last."""
    kept = data.subset([clip.utt for clip in clips]).tables
    kept.pop("segments", None)
    kept["wav.scp"] = {clip.utt: clip.path for clip in clips}
    kept["utt2num_samples"] = {clip.utt: str(clip.samples) for clip in clips}
    DataDir(kept).write(out)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Refuse a second dump of the same set at the same time.

    A record lock: unlike flock's it is not kept alive by the workers of a process that was killed.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{out}: another dump of this set is running: wait for it") from error
        yield
