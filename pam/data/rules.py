"""Consistency rules between the text files of a data directory, and rules for their values.

Each rule keeps the good entries and reports the others, with the line in the file and the remedy.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path

from pam.data.audio import MAX_OVERSHOOT_SECONDS
from pam.data.choices import parse_choices
from pam.data.concat import files_of
from pam.data.scp import Problem, id_fault, line_numbers
from pam.data.tasks import all_tasks, unknown_task
from pam.errors import PamError
from pam.registry import nearest

REQUIRED = ("text", "utt2spk", "utt2task", "wav.scp")
# COMPLETE files have one entry for each utterance; PARTIAL ones may have fewer.
FEATURES = re.compile(r"utt2num_frames|feats(_\w+)?\.scp")
COMPLETE = re.compile(rf"text|utt2spk|utt2task|segments|utt2num_samples|{FEATURES.pattern}")
PARTIAL = re.compile(r"prompt|choices|text_warmup|text_ref([2-9]|[1-9]\d+)|utt2(dur|cluster)")
COUNT = re.compile(r"[1-9][0-9]{0,14}")
POSITIVE = "write a positive number"

Files = dict[str, dict[str, str]]
AudioCheck = Callable[[str], str | None]  # path of a recording → its fault, or None
Seconds = Callable[[str], float | None]  # path of a recording → its length, or None if unknown
Fault = tuple[str, str, str]  # rule, value, remedy


def is_text_file(name: str) -> bool:
    """Whether a data directory may have a text file of that name. (spk2utt is derived.)"""
    return name == "wav.scp" or bool(COMPLETE.fullmatch(name) or PARTIAL.fullmatch(name))


class Rules:
    """Checks files against each other; `kept` and `problems` are the result of `run`.

    A required file may be missing: whoever lists the files reports it.
    """

    def __init__(self, path: Path, files: Files, from_files: bool):
        self.path = path
        self.kept = dict(files)
        self.problems: list[Problem] = []
        self._from_files = from_files
        self._lines: dict[str, dict[str, int]] = {}

    def run(self, audio: AudioCheck | None, seconds: Seconds | None = None) -> None:
        self._drop_empty_files()
        for name in sorted(self.kept):
            self._check_values(name, audio)
        if self.kept.keys() >= {"segments", "wav.scp"}:
            self._check_segments(seconds)
        self._check_utterances()
        self._drop_empty_files()
        if "utt2spk" in self.kept:
            self._check_prefixes()

    def report(self, file: str, key: str, fault: Fault, warning: bool = False) -> None:
        if self._from_files and file not in self._lines:
            self._lines[file] = line_numbers(self.path / file)
        line = self._lines.get(file, {}).get(key)
        self.problems.append(Problem(str(self.path / file), line, *fault, warning))

    def _drop_empty_files(self) -> None:
        for name in [name for name, entries in self.kept.items() if not entries]:
            if name not in REQUIRED:
                self.report(name, "", ("no good line in the file", "", "remove it or fill it"))
                del self.kept[name]

    def _check_values(self, name: str, audio: AudioCheck | None) -> None:
        rule = _value_rule(name, audio)
        if rule is None:
            return
        bad = set()
        for key, value in self.kept[name].items():
            if fault := rule(value):
                self.report(name, key, fault)
                bad.add(key)
        self._drop(name, bad)

    def _drop(self, name: str, bad: set[str]) -> None:
        if bad:
            self.kept[name] = {k: v for k, v in self.kept[name].items() if k not in bad}

    def _check_segments(self, seconds: Seconds | None) -> None:
        ends = self._ends_of_audio(seconds) if seconds else {}
        recordings, bad, used = self.kept["wav.scp"], set(), set()
        for utt, value in self.kept["segments"].items():
            recording, _, end = value.split()
            if recording not in recordings:
                remedy = "add it to wav.scp or remove the segment"
                self.report("segments", utt, ("unknown recording", recording, remedy))
                bad.add(utt)
            elif float(end) > ends.get(recording, math.inf) + MAX_OVERSHOOT_SECONDS:
                remedy = f"the recording has {ends[recording]:.2f} s: correct or remove the segment"
                self.report("segments", utt, ("segment ends after the audio:", value, remedy))
                bad.add(utt)
            else:
                used.add(recording)
        self._drop("segments", bad)
        for unused in sorted(recordings.keys() - used):
            remedy = "it is left out: add its segments or remove it"
            self.report("wav.scp", unused, ("recording without segments", unused, remedy), True)

    def _ends_of_audio(self, seconds: Seconds) -> dict[str, float]:
        """Recording → its length, if known. Recordings that cannot be opened are dropped."""
        ends, bad = {}, set()
        for recording, path in self.kept["wav.scp"].items():
            try:
                length = seconds(path)
            except PamError as error:
                self.report("wav.scp", recording, ("bad audio", "", str(error)))
                bad.add(recording)
            else:
                ends[recording] = math.inf if length is None else length
        self._drop("wav.scp", bad)
        return ends

    def _check_utterances(self) -> None:
        """COMPLETE files have an entry for every utterance; PARTIAL ones have no other ids."""
        complete = [name for name in sorted(self.kept) if COMPLETE.fullmatch(name)]
        if "wav.scp" in self.kept and "segments" not in self.kept:
            complete.append("wav.scp")
        everything = set().union(*(self.kept[name] for name in complete))
        good = everything.intersection(*(self.kept[name] for name in complete))
        for utt in sorted(everything - good):
            self._report_incomplete(utt, complete)
        for name in sorted(name for name in self.kept if PARTIAL.fullmatch(name)):
            for utt in sorted(self.kept[name].keys() - everything):
                fault = ("id without an utterance", utt, "remove the line or correct the id")
                self.report(name, utt, fault)
        self.kept = restrict(self.kept, good)

    def _report_incomplete(self, utt: str, complete: list[str]) -> None:
        having = [name for name in complete if utt in self.kept[name]]
        lacking = [name for name in complete if name not in having]
        remedy = "add or correct its line there, or remove it here"
        if having == ["text"]:
            remedy += "; if a line break split a transcript, join the lines"
        self.report(
            having[0], utt, (f"id has no usable line in {', '.join(lacking)}:", utt, remedy)
        )

    def _check_prefixes(self) -> None:
        speakers = self.kept["utt2spk"]
        others = [utt for utt, speaker in speakers.items() if not utt.startswith(speaker)]
        if others:
            rule = f"speaker {speakers[others[0]]!r} is not a prefix of"
            remedy = f"begin ids with their speaker, so that both sort alike ({len(others)} do not)"
            self.report("utt2spk", others[0], (rule, others[0], remedy), warning=True)


def restrict(files: Files, utts: set[str]) -> Files:
    """Only these utterances, and in wav.scp the recordings they use.

    An unchanged file is not copied, since a set may have 300,000 utterances.
    """
    recordings = utts
    if "segments" in files:
        recordings = {v.split()[0] for utt, v in files["segments"].items() if utt in utts}
    keep = {name: recordings if name == "wav.scp" else utts for name in files}
    return {
        name: entries
        if entries.keys() <= keep[name]
        else {key: value for key, value in entries.items() if key in keep[name]}
        for name, entries in files.items()
    }


def _value_rule(name: str, audio: AudioCheck | None) -> Callable[[str], Fault | None] | None:
    if name == "wav.scp":
        return lambda value: _audio_fault(value, audio)
    if name.startswith("utt2num_"):
        return lambda value: None if COUNT.fullmatch(value) else ("not a count", value, POSITIVE)
    rules = {
        "utt2task": _task,
        "utt2spk": lambda value: _named(value, "speaker"),
        "utt2cluster": lambda value: _named(value, "cluster"),
        "utt2dur": _duration,
        "segments": _segment,
        "choices": _choices,
    }
    return rules.get(name)


def _audio_fault(value: str, audio: AudioCheck | None) -> Fault | None:
    if value.endswith("|"):
        return "commands are not run:", value, "convert to an audio file and give its path"
    try:
        files = files_of(value)
    except PamError as error:
        return "bad audio", "", str(error)
    wrong = next(filter(None, map(audio, files)), None) if audio else None
    return ("bad audio", "", wrong) if wrong else None


def _task(value: str) -> Fault | None:
    return None if value in all_tasks() else ("unknown task", value, unknown_task(value))


def _choices(value: str) -> Fault | None:
    try:
        parse_choices(value)
    except PamError as error:
        return "bad choices", "", str(error)
    return None


def _named(value: str, what: str) -> Fault | None:
    wrong = id_fault(value)
    return (f"{wrong[0]} of the {what}", value, wrong[1]) if wrong else None


def _duration(value: str) -> Fault | None:
    return None if _seconds(value) > 0 else ("not a duration", value, POSITIVE)


def _segment(value: str) -> Fault | None:
    parts = value.split()
    start, end = (_seconds(part) for part in parts[1:]) if len(parts) == 3 else (-1.0, -1.0)
    if 0 <= start < end:
        return None
    remedy = "write: utterance recording start end, in seconds, with 0 <= start < end"
    return "not a segment:", value, remedy


def _seconds(value: str) -> float:
    """A finite number of seconds; -1 for any other text."""
    try:
        seconds = float(value)
    except ValueError:
        return -1.0
    return seconds if math.isfinite(seconds) else -1.0


def refuse(path: Path, files: Files) -> None:
    """`PamError` for the first fault of files before they are written to `path`."""
    for name in files:
        if not is_text_file(name):
            known = [
                *REQUIRED,
                "segments",
                "prompt",
                "choices",
                "text_warmup",
                "text_ref2",
                "utt2dur",
                "utt2cluster",
            ]
            raise PamError(f"{path / name}: unknown text file: {nearest(name, known)}")
    for name in REQUIRED:
        if not files.get(name):
            raise PamError(f"{path / name}: missing: fill {name!r} before writing")
    rules = Rules(path, files, from_files=False)
    rules.run(audio=None)
    for problem in rules.problems:
        if not problem.warning:
            raise PamError(str(problem))
