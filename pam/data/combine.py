"""Stage 3 combines dumped sets into one multitask directory, the input of training.

To the text files of a data directory it adds feats_<encoder>.scp, utt2num_frames (at 25 Hz, the
minimum over the encoders; ESPnet's shape file), and sets.json, a summary of the sets.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pam.atomic import atomic_folder, write_json
from pam.data.datadir import DataDir
from pam.data.rules import COUNT
from pam.data.scp import read_text_file, write_text_file
from pam.data.tasks import get_task
from pam.disk import writing
from pam.errors import PamError
from pam.log import get_logger
from pam.rate import FRAMES_PER_SECOND, SAMPLE_RATE

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAMES_PER_SECOND
SUMMARY = "sets.json"
logger = get_logger(__name__)


@dataclass(frozen=True)
class SetSpec:
    """A dumped set and, optionally, a task for all its utterances."""

    path: Path
    task: str | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @classmethod
    def parse(cls, text: str) -> "SetSpec":
        """Read `DIR` or `DIR:task`."""
        folder, colon, task = text.rpartition(":")
        if not colon or Path(text).is_dir():
            return cls(Path(text))
        return cls(Path(folder), get_task(task).name)


def combine(
    specs: Sequence[SetSpec],
    out: str | Path,
    encoders: Sequence[str] = (),
    encoder_dir: str | Path = "dump",
) -> dict[str, dict[str, object]]:
    """Write the multitask directory `out`; returns the summary of each set.

    Features are read from `encoder_dir`/<encoder>/<set>/. Without encoders (online features)
    utt2num_frames is the nominal length, 640 samples per frame. `PamError` for an id in two sets
    and for an utterance without features of an encoder.
    """
    out = Path(out)
    _refuse_names(specs, encoders, out)
    sets, summary = {}, {}
    for spec in specs:
        sets[spec.name], summary[spec.name] = _read_set(spec)
    merged = DataDir.combine(sets)
    with_features = [Path(encoder_dir) / encoder for encoder in encoders]
    with writing(out), atomic_folder(out) as part:
        merged.write(part)
        write_text_file(part / "utt2num_frames", _merge_features(sets, with_features, part))
        write_json(part / SUMMARY, {"sets": summary, "encoders": list(encoders)})
    return summary


def _refuse_names(specs: Sequence[SetSpec], encoders: Sequence[str], out: Path) -> None:
    names = [spec.name for spec in specs]
    for kind, listed in (("set", names), ("encoder", list(encoders))):
        if twice := sorted({name for name in listed if listed.count(name) > 1}):
            raise PamError(f"{kind} {twice[0]!r} is given twice: name each {kind} once")
    if not names:
        raise PamError(f"{out}: nothing to combine: name at least one set")
    for encoder in encoders:
        if not re.fullmatch(r"\w+", encoder):
            raise PamError(f"encoder {encoder!r}: use letters, digits and _ in an encoder's name")
    if out.exists() and any(out.iterdir()) and not (out / SUMMARY).exists():
        raise PamError(f"{out}: is not a combined set: choose another --out")


def _read_set(spec: SetSpec) -> tuple[DataDir, dict[str, object]]:
    """The set and its summary."""
    data = DataDir.read(spec.path).without_features()
    if "segments" in data or "utt2num_samples" not in data:
        raise PamError(f"{spec.path}: not dumped (no utt2num_samples): run the dump stage first")
    if spec.task:
        data.files["utt2task"] = dict.fromkeys(data["utt2task"], spec.task)
    samples = sum(map(int, data["utt2num_samples"].values()))
    return data, {
        "task": ",".join(sorted(set(data["utt2task"].values()))),
        "utterances": len(data),
        "hours": round(samples / SAMPLE_RATE / 3600, 4),
    }


def _merge_features(
    sets: Mapping[str, DataDir], folders: Sequence[Path], out: Path
) -> dict[str, str]:
    """Write feats_<encoder>.scp of all encoders; returns the number of frames of each utterance."""
    if not folders:
        return {
            utt: str(max(1, int(samples) // SAMPLES_PER_FRAME))
            for data in sets.values()
            for utt, samples in data["utt2num_samples"].items()
        }
    frames: dict[str, str] = {}
    for folder in folders:
        pointers: dict[str, str] = {}
        for name, data in sets.items():
            pointers |= _pick(folder / name / "feats.scp", data)
            file = folder / name / "utt2num_frames"
            for utt, count in _pick(file, data).items():
                if not COUNT.fullmatch(count):
                    raise PamError(f"{file}: {utt!r}: {count!r} is not a count: {_again(file)}")
                if utt not in frames or int(count) < int(frames[utt]):
                    frames[utt] = count
        write_text_file(out / f"feats_{folder.name}.scp", pointers)
    return frames


def _pick(file: Path, data: DataDir) -> dict[str, str]:
    """The entries of the set's utterances. `PamError` if one is missing."""
    if not file.exists():
        raise PamError(f"{file}: missing: run the dump stage for this encoder and set")
    entries = read_text_file(file)
    missing = data["text"].keys() - entries.keys()
    if missing:
        raise PamError(
            f"{file}: {min(missing)!r} is missing ({len(missing)} in all): {_again(file)}"
        )
    if extra := len(entries) - len(data):
        logger.info("%s: %d entries are not used (utterances dropped from the set)", file, extra)
    return {utt: entries[utt] for utt in data["text"]}


def _again(file: Path) -> str:
    return f"remove the folder {file.parent} and run the dump stage again"
