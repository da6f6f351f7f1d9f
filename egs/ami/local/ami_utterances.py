"""Utterances of individual headsets, the result of both readers of AMI, named as in Kaldi."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MEETINGS = Path(__file__).with_name("meetings.tsv")
# Utterances of the headset recordings in Kaldi's s5 recipe, hence of the Hugging Face data set.
PUBLISHED = {"train": 108502, "dev": 13098, "test": 12643}
MARK = re.compile(r"<[^<>\s]*>")  # <unk> and the like: not spoken
# Why utterances are left out.
EMPTY = "no words (noises, laughter or marks only)"
NO_TIME = "not longer than 0 s"
TWICE = "the same id twice"
LATE = "after the end of the audio"
NO_AUDIO = "no audio"
NO_SPEAKER = "speaker not in meetings.xml"
NO_WORDS = "points at words that do not exist"


@dataclass(frozen=True)
class Utterance:
    """A speaker's utterance in one headset, from `start` to `end` in seconds of the meeting."""

    meeting: str
    channel: int
    speaker: str
    start: float
    end: float
    text: str

    @property
    def recording(self) -> str:
        return f"AMI_{self.meeting}_H{self.channel:02d}"

    @property
    def recording_file(self) -> str:
        """The recording as the corpus names it."""
        return f"{self.meeting}.Headset-{self.channel}.wav"

    @property
    def speaker_id(self) -> str:
        """A speaker in a meeting: a prefix of the utterance's id, as in Kaldi's recipe."""
        return f"{self.recording}_{self.speaker}"

    @property
    def id(self) -> str:
        return f"{self.speaker_id}_{centiseconds(self.start):07d}_{centiseconds(self.end):07d}"


def centiseconds(seconds: float) -> int:
    return round(100 * seconds)


def clean(text: str) -> str:
    """Lower case, single spaces, no marks."""
    return " ".join(MARK.sub(" ", text).lower().split())


def meetings_of_sets() -> dict[str, list[str]]:
    """Set → its meetings, by the corpus' own partition full-corpus-asr."""
    sets: dict[str, list[str]] = defaultdict(list)
    for meeting, name, _ in rows():
        sets[name].append(meeting)
    return dict(sets)


def headsets() -> dict[str, int]:
    """Meeting → how many headsets were recorded."""
    return {meeting: int(count) for meeting, _, count in rows()}


def rows() -> list[list[str]]:
    lines = MEETINGS.read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


def unique(utterances: Iterable[Utterance], faults: dict[str, list[str]]) -> list[Utterance]:
    """Sorted by id; of those with the same id the first."""
    found: dict[str, Utterance] = {}
    for utterance in utterances:
        if utterance.id in found:
            faults[TWICE].append(utterance.id)
        found.setdefault(utterance.id, utterance)
    return [found[utt] for utt in sorted(found)]


def overlapping(utterances: Iterable[Utterance]) -> int:
    """How many begin before the one before them, of the same headset, has ended."""
    count, ends = 0, defaultdict(float)
    for utterance in sorted(utterances, key=lambda u: (u.recording, u.start, u.end)):
        count += utterance.start < ends[utterance.recording]
        ends[utterance.recording] = max(ends[utterance.recording], utterance.end)
    return count
