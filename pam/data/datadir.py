"""Kaldi-style data directories: read, write, validate, fix, subset and combine.

Required: wav.scp, text, utt2spk, spk2utt and utt2task. Optional: segments, prompt (a fixed prompt;
"\\n" is a line break), choices (meaning of the letters of a multiple-choice prompt), text_warmup,
text_ref2 … (further references), utt2cluster (groups of dependent utterances, if they are not the
speakers), utt2dur, utt2num_samples, utt2num_frames and feats_<encoder>.scp. An entry of wav.scp is
a path, a member of a shard (pam/data/shards.py) or a concatenation (pam/data/concat.py). wav.scp is
written last: if it exists, the directory is complete.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from pam.data.rules import (
    FEATURES,
    REQUIRED,
    AudioCheck,
    Rules,
    Seconds,
    is_text_file,
    refuse,
    restrict,
)
from pam.data.scp import Problem, line_numbers, scan_text_file, write_text_files
from pam.errors import PamError
from pam.paths import ROOT

SPK2UTT = "spk2utt"
UTT2TASK = "utt2task"
FIX = ROOT / "utils/fix_data_dir.sh"  # of a clone
MAKE_AGAIN = "run the recipe's data stage again"
MAKE_TASKS = "make utt2task first"
# Other files that a directory may hold; any further name is probably misspelled.
OTHER = re.compile(r"\..*|.*\.(jsonl?|md|log|part)|(bad|dropped)_utts|spk2utt")


@dataclass
class DataDir:
    """The files of a directory: file name → {id: value}; spk2utt is derived from utt2spk.

    The ids are utterances, except in wav.scp if there is a file `segments`: recordings.
    """

    files: dict[str, dict[str, str]] = field(default_factory=dict)

    def __getitem__(self, file: str) -> dict[str, str]:
        return self.files[file]

    def __contains__(self, file: str) -> bool:
        return file in self.files

    def __len__(self) -> int:
        return len(self["text"])

    @property
    def is_usable(self) -> bool:
        """Whether every required file has an entry."""
        return all(self.files.get(name) for name in REQUIRED)

    @property
    def lacks_only_tasks(self) -> bool:
        """Whether a file utt2task would make it usable, as for a directory that is Kaldi's."""
        others = (self.files.get(name) for name in REQUIRED if name != UTT2TASK)
        return UTT2TASK not in self and all(others)

    @property
    def utterances(self) -> list[str]:
        """All utterance ids, sorted."""
        return sorted(self["text"])

    @property
    def references(self) -> list[str]:
        """The files with references: text, text_ref2, text_ref3 …"""
        more = [name for name in self.files if name.startswith("text_ref")]
        return ["text", *sorted(more, key=lambda name: int(name.removeprefix("text_ref")))]

    def cluster(self, utt: str) -> str:
        """The cluster of an utterance: its entry in `utt2cluster`, else its speaker."""
        return self.files.get("utt2cluster", {}).get(utt) or self["utt2spk"][utt]

    def audio(self, utt: str) -> tuple[str, float | None, float | None]:
        """(path, start, end) of an utterance, in seconds, as `load_audio` takes them."""
        if "segments" not in self:
            return self["wav.scp"][utt], None, None
        recording, start, end = self["segments"][utt].split()
        return self["wav.scp"][recording], float(start), float(end)

    @classmethod
    def read(cls, path: str | Path) -> "DataDir":
        """Read a directory; `PamError` at its first fault. Audio files are not opened."""
        found, problems = check(path)
        errors = [problem for problem in problems if not problem.warning]
        if errors:
            raise first_of(path, found, errors)
        return found

    def write(self, path: str | Path) -> None:
        """Write all files and spk2utt, sorted and atomically. Other text files there are removed.

        `PamError` for files that `read` would refuse, before any file is changed.
        """
        path = Path(path)
        refuse(path, self.files)
        files = {SPK2UTT: spk2utt(self["utt2spk"]), **self.files}
        files["wav.scp"] = files.pop("wav.scp")  # the last one

        def remove_old() -> None:
            (path / "wav.scp").unlink(missing_ok=True)
            for old in path.iterdir():
                if is_text_file(old.name) and old.name not in files:
                    old.unlink()

        write_text_files({path / name: entries for name, entries in files.items()}, remove_old)

    def subset(self, utterances: Iterable[str]) -> "DataDir":
        """Only these utterances (an unknown one is an error) and the recordings they use."""
        chosen = set(utterances)
        if unknown := chosen - self["text"].keys():
            raise PamError(f"subset: {min(unknown)!r} is not an utterance of the directory")
        kept = restrict(self.files, chosen)
        return DataDir({name: file for name, file in kept.items() if file or name in REQUIRED})

    def without_features(self) -> "DataDir":
        """Without feats*.scp and utt2num_frames, which describe what was made of other audio."""
        return DataDir({n: file for n, file in self.files.items() if not FEATURES.fullmatch(n)})

    @classmethod
    def combine(cls, sets: Mapping[str, "DataDir"]) -> "DataDir":
        """The union of named sets. `PamError` for an id in two sets; it names both."""
        segmented = sorted(name for name, part in sets.items() if "segments" in part)
        if 0 < len(segmented) < len(sets):
            raise PamError(f"only {', '.join(segmented)} have segments: run the dump stage first")
        files: dict[str, dict[str, str]] = {}
        for name, part in sets.items():
            for file, entries in part.files.items():
                merged = files.setdefault(file, {})
                if clash := merged.keys() & entries.keys():
                    raise _clash(min(clash), file, sets, name)
                merged.update(entries)
        return cls(files)


def first_of(path: str | Path, found: DataDir, errors: list[Problem]) -> PamError:
    """The first of the errors beside which `check` found `found`, with a remedy for all."""
    remedy = MAKE_TASKS if found.lacks_only_tasks else MAKE_AGAIN
    if found.is_usable:
        remedy = f"{fix_command(path)} mends them"
    return PamError(f"{errors[0]} ({len(errors)} errors in all, {remedy})")


def fix_command(path: str | Path, *options: str) -> str:
    """The command that repairs a directory; for a recipe's directory it works in any folder."""
    folder = str(Path(path).absolute())
    if not FIX.is_file():
        return shlex.join(["pam", "validate", "--fix", folder, *options])
    script = FIX.relative_to(Path.cwd()) if FIX.is_relative_to(Path.cwd()) else FIX
    return shlex.join([str(script), folder, *options])


def spk2utt(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """The inverse of utt2spk: speaker → its utterances, separated by spaces."""
    speakers: dict[str, list[str]] = {}
    for utt in sorted(utt2spk):
        speakers.setdefault(utt2spk[utt], []).append(utt)
    return {speaker: " ".join(utts) for speaker, utts in sorted(speakers.items())}


def check(
    path: str | Path, audio: AudioCheck | None = None, seconds: Seconds | None = None
) -> tuple[DataDir, list[Problem]]:
    """The good entries of a directory, and all its problems.

    `audio` takes the path of a recording and returns its fault, or None. `seconds` returns its
    length, to check the ends of segments.
    """
    path = Path(path)
    if not path.is_dir():
        raise PamError(f"{path}: no such data directory: run the recipe's data stage first")
    names = sorted(file.name for file in path.iterdir())
    problems = [_missing(path, name) for name in (*REQUIRED, SPK2UTT) if name not in names]
    problems += [_unknown(path, name) for name in names if _is_unknown(path / name)]
    files = {}
    for name in filter(is_text_file, names):
        if (path / name).is_fifo():  # whoever reads it would wait for a writer
            raise PamError(f"{path / name}: this is a pipe: put a file in its place")
        files[name], found = scan_text_file(path / name)
        problems += found
    if SPK2UTT in names and "utt2spk" in files:
        problems += _check_spk2utt(path, files["utt2spk"])
    rules = Rules(path, files, from_files=True)
    rules.run(audio, seconds)
    return DataDir(rules.kept), problems + rules.problems


def validate(
    path: str | Path, audio: AudioCheck | None = None, seconds: Seconds | None = None
) -> list[Problem]:
    """All problems of a directory. It is usable if all of them are warnings."""
    return check(path, audio, seconds)[1]


def fix(
    path: str | Path, audio: AudioCheck | None = None, seconds: Seconds | None = None
) -> list[Problem]:
    """Keep the good entries, sorted and consistent; returns the problems that were repaired.

    The files of before are kept in `.backup/`, of a second fix in `.backup.1/` and so on.
    `PamError` if no good entry is left.
    """
    good, problems = check(path, audio, seconds)
    replace(Path(path), good, problems)
    return problems


def replace(path: Path, good: DataDir, problems: list[Problem]) -> None:
    """Write the good entries that `check` found, if it found errors too."""
    errors = [problem for problem in problems if not problem.warning]
    if not good.is_usable:
        why = errors[0] if errors else "it is empty"
        raise PamError(f"{path}: nothing was changed: no good utterance would be left ({why})")
    if errors:
        _back_up(path)
        good.write(path)


def _missing(path: Path, name: str) -> Problem:
    remedy = f"run {fix_command(path)}" if name == SPK2UTT else MAKE_AGAIN
    if name == UTT2TASK:
        text, made = (shlex.quote(str(path.absolute() / file)) for file in ("text", name))
        remedy = (
            "name the task of each utterance; if all have one, in the place of TASK: "
            f"""awk '{{print $1, "TASK"}}' {text} > {made}"""
        )
    return Problem(str(path / name), None, "missing file", "", remedy)


def _unknown(path: Path, name: str) -> Problem:
    remedy = "remove the file or correct its name"
    return Problem(str(path / name), None, "not a known text file, it is ignored", "", remedy, True)


def _is_unknown(file: Path) -> bool:
    return file.is_file() and not is_text_file(file.name) and not OTHER.fullmatch(file.name)


def _check_spk2utt(path: Path, utt2spk: dict[str, str]) -> list[Problem]:
    file = path / SPK2UTT
    found, problems = scan_text_file(file)
    expected, lines = spk2utt(utt2spk), None
    for speaker in sorted(expected.keys() | found.keys()):
        if expected.get(speaker, "").split() != found.get(speaker, "").split():
            lines = lines or line_numbers(file)
            rule, remedy = "not the inverse of utt2spk for speaker", f"run {fix_command(path)}"
            problems.append(Problem(str(file), lines.get(speaker), rule, speaker, remedy))
    return problems


def _back_up(path: Path) -> None:
    names = (f".backup.{number}" if number else ".backup" for number in count())
    folder = next(path / name for name in names if not (path / name).exists())
    folder.mkdir()
    for file in path.iterdir():
        if is_text_file(file.name) or file.name == SPK2UTT:
            (folder / file.name).write_bytes(file.read_bytes())


def _clash(key: str, file: str, sets: Mapping[str, DataDir], second: str) -> PamError:
    first = next(name for name, part in sets.items() if key in part.files.get(file, {}))
    return PamError(
        f"{file}: {key!r} is in both {first} and {second}: give the ids of one set a prefix"
    )
