"""Data directories from corpora in other forms: what the readers of all forms have in common.

`pam.data.lhotse`, `pam.data.hub` and `pam.data.samples` yield utterances as `Item` or `LeftOut`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pam.data.corpus import cluster_id, list_left_out, report_left_out
from pam.data.datadir import DataDir
from pam.data.scp import one_line
from pam.errors import PamError
from pam.log import get_logger
from pam.registry import nearest

FORMS = (
    "give manifests of lhotse (.jsonl.gz), a folder of save_to_disk or of Parquet files, or tar "
    "shards"
)
logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """An utterance.

    Attributes:
        where: the place in the source, for messages.
        recording: id of its recording; None if `audio` is the utterance.
        audio: entry of wav.scp.
        start, end: seconds in the recording, if they are known.
        is_whole: whether the utterance is the whole recording.
    """

    where: str
    id: str
    audio: str
    text: str
    speaker: str | None = None
    recording: str | None = None
    start: float | None = None
    end: float | None = None
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What cannot be an utterance, and why."""

    where: str
    reason: str


def to_data_dir(found: Iterable[Item | LeftOut], out: Path, task: str, prefix: str = "") -> DataDir:
    """Write the utterances to `out`; what was left out is listed in out/left_out.log.

    Every id begins with `prefix`, and with the speaker if there is one. `PamError` if an id comes
    twice or no utterance is left.
    """
    left_out: dict[str, list[str]] = {}
    items: dict[str, Item] = {}
    speakers: dict[str, str] = {}
    texts: dict[str, str] = {}
    for item in found:
        if isinstance(item, Item) and not (text := one_line(item.text)):
            item = LeftOut(item.where, "without text")
        if isinstance(item, LeftOut):
            left_out.setdefault(item.reason, []).append(item.where)
            continue
        utt, speaker = ids(item, prefix)
        if utt in items:
            raise PamError(
                f"{item.where}: the id {utt!r} was used before, at {items[utt].where}: "
                "make the ids unique"
            )
        items[utt], speakers[utt], texts[utt] = item, speaker, text
    report_left_out(logger, str(out), left_out)
    if not items:
        reasons = ", ".join(f"{reason}: {where[0]}" for reason, where in left_out.items())
        raise PamError(f"{out}: no utterance was found ({reasons or 'the source is empty'})")
    data = DataDir(
        {"text": texts, "utt2spk": speakers, "utt2task": dict.fromkeys(items, task)}
        | audio_files(items, prefix)
    )
    data.write(out)
    list_left_out(out, left_out)
    return data


def ids(item: Item, prefix: str) -> tuple[str, str]:
    """The ids of an utterance and its speaker, without spaces and slashes.

    Without a speaker each utterance has its own, as in Kaldi.
    """
    utt = prefix + cluster_id(item.id)
    if not item.speaker:
        return utt, utt
    speaker = prefix + cluster_id(item.speaker)
    return (utt if utt.startswith(speaker) else f"{speaker}-{cluster_id(item.id)}"), speaker


def audio_files(items: dict[str, Item], prefix: str) -> dict[str, dict[str, str]]:
    """wav.scp, and segments unless every utterance is a whole recording."""
    named = {item.recording or utt for utt, item in items.items()}
    if len(named) == len(items) and all(item.is_whole for item in items.values()):
        return {"wav.scp": {utt: item.audio for utt, item in items.items()}}
    recordings: dict[str, str] = {}
    segments: dict[str, str] = {}
    for utt, item in items.items():
        recording = prefix + cluster_id(item.recording or item.id)
        if recordings.setdefault(recording, item.audio) != item.audio:
            raise PamError(
                f"{item.where}: the recording {recording!r} was used before, for "
                f"{recordings[recording]}: make the ids unique"
            )
        segments[utt] = f"{recording} {item.start:.4f} {item.end:.4f}"
    return {"wav.scp": recordings, "segments": segments}


def chosen_split(folder: Path, split: str | None, names: list[str]) -> str:
    """The split of --split. `PamError` if it is unknown, or not given and there are several."""
    if split is None and len(names) == 1:
        return names[0]
    if split is None:
        raise PamError(f"{folder}: several splits: choose one with --split: {', '.join(names)}")
    if split not in names:
        raise PamError(f"{folder}: --split {split!r}: {nearest(split, names)}")
    return split
