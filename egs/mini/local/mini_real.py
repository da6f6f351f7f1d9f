"""snv_test_real: real people out of two PyPI source distributions.

Council meetings (speakerbox, nine named people, five sessions): items as in the test of
mini_speakers, all segments of an item from one session, all people from one of two groups. AMI
meetings (pyannote.audio, 14 excerpts of 30 s): windows of natural talk with overlaps; everybody
who speaks in a window does so for at least a second.
"""

import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float
from mini_items import Item
from mini_mix import at_level
from mini_speakers import (
    ANSWERS,
    COUNTS,
    SEGMENT_SECONDS,
    Voice,
    balanced_layouts,
    counted_items,
    joined,
)

from pam.data.audio import load_audio
from pam.paths import cache_dir
from tools.fetch_corpora import complete_folder, unpacked

COUNCIL = "speakerbox"
COUNCIL_ZIP = "speakerbox-1.2.0/speakerbox/tests/data/diarized.zip"
# Items that share a person are one cluster. Nobody is in items of both groups, so the nine people
# make two clusters; more would leave fewer than the four people that the answer "four" needs.
COUNCIL_GROUPS = {
    "a": ("gonzalez", "herbold", "juarez", "morales"),
    "b": ("lewis", "mosqueda", "pedersen", "sawant", "strauss"),
}
CLIP_SECONDS = 3.0  # long clips are used as several recordings of this length

AMI = "pyannote.audio"
AMI_FOLDER = "pyannote_audio-4.0.7/tests/data/"
WINDOW_SECONDS = 6.0
MIN_SPOKEN_SECONDS = 1.0
STEP_SECONDS = 0.5


@dataclass(frozen=True)
class Window:
    """A part of a recording, seconds."""

    path: str
    start: float
    end: float


def real_items(count: int, seed: int) -> list[Item]:
    """`count` items of council meetings and every window of AMI that qualifies."""
    return council_items(count, seed) + ami_items()


def render_real(item: Item) -> Float[np.ndarray, " N"]:
    if isinstance(item.recipe, Window):
        window = item.recipe
        return at_level(load_audio(_ami_folder() / window.path, window.start, window.end))
    return joined([(_council_audio(s.source), s) for s in item.recipe])


def council_items(count: int, seed: int) -> list[Item]:
    """Equally many of each answer, the sessions and groups in turn."""
    rooms = sorted(council_people().items())
    items = []
    for i, (room, people) in enumerate(rooms):
        share = range(i, -(-count // len(COUNTS)), len(rooms))  # of rounds over the answers
        layouts = balanced_layouts(len(share) * len(COUNTS))
        items += counted_items(f"snv-real-{room}", people, layouts, seed)
    return items[:count]


def council_people() -> dict[str, dict[str, list[Voice]]]:
    """Session and group → person → their one voice, its sources as "path start".

    Where fewer than four people of a group speak, it is left out.
    """
    rooms: dict[str, dict[str, list[Voice]]] = {}
    for path in sorted(_council_folder().glob("*/*")):
        sources = tuple(source for clip in sorted(path.glob("*.wav")) for source in _parts(clip))
        group = next((name for name, who in COUNCIL_GROUPS.items() if path.name in who), None)
        if sources and group:
            people = rooms.setdefault(f"{path.parent.name}-{group}", {})
            people[path.name] = [Voice(path.name, sources)]
    return {name: people for name, people in rooms.items() if len(people) >= max(COUNTS)}


def _parts(clip: Path) -> Iterator[str]:
    seconds = soundfile.info(clip).duration
    name = clip.relative_to(_council_folder()).as_posix()
    for i in range(int(max(seconds, CLIP_SECONDS) // CLIP_SECONDS)):
        if seconds - i * CLIP_SECONDS >= SEGMENT_SECONDS[1]:
            yield f"{name} {i * CLIP_SECONDS:g}"


def _council_audio(source: str) -> Float[np.ndarray, " N"]:
    name, start = source.rsplit(" ", 1)
    path = _council_folder() / name
    end = min(float(start) + CLIP_SECONDS, soundfile.info(path).duration)
    return load_audio(path, float(start), end)


def _council_folder() -> Path:
    final = cache_dir() / "corpora" / "speakerbox-clips"
    if not final.is_dir():
        archive = unpacked(COUNCIL, lambda path: path in (COUNCIL_ZIP, "speakerbox-1.2.0/LICENSE"))
        with complete_folder(final) as part, zipfile.ZipFile(archive / COUNCIL_ZIP) as packed:
            packed.extractall(part)  # zipfile drops ".." and leading slashes
    return final


def ami_items() -> list[Item]:
    """Windows that do not overlap; how many there are of each answer is what the meetings give."""
    items = []
    for name, turns in sorted(ami_turns().items()):
        for i, (start, speakers) in enumerate(windows(turns)):
            recipe = Window(_ami_file(name), start, start + WINDOW_SECONDS)
            utt = f"snv-real-ami-{name}-{i}"
            people = sorted(_spoken(turns, start, start + WINDOW_SECONDS))
            sources = (f"ami-{name}", *map(_ascii, people))
            items.append(Item(utt, utt, ANSWERS[speakers], recipe, sources=sources))
    return items


def windows(
    turns: list[tuple[float, float, str]], seconds: float = 30.0
) -> Iterator[tuple[float, int]]:
    """(start, number of speakers): the first that qualifies, then the first after its end …"""
    start = 0.0
    while start + WINDOW_SECONDS <= seconds:
        spoken = _spoken(turns, start, start + WINDOW_SECONDS)
        if spoken and min(spoken.values()) >= MIN_SPOKEN_SECONDS and len(spoken) in ANSWERS:
            yield start, len(spoken)
            start += WINDOW_SECONDS
        else:
            start += STEP_SECONDS


def _spoken(turns: list[tuple[float, float, str]], start: float, end: float) -> dict[str, float]:
    spoken: dict[str, float] = {}
    for first, last, speaker in turns:
        if (seconds := min(last, end) - max(first, start)) > 0:
            spoken[speaker] = spoken.get(speaker, 0.0) + seconds
    return spoken


def ami_turns() -> dict[str, list[tuple[float, float, str]]]:
    """Excerpt → its turns (start, end, speaker), by the RTTM files of the distribution."""
    turns: dict[str, list[tuple[float, float, str]]] = {}
    for path in sorted(_ami_folder().glob("*.rttm")):
        for line in path.read_text(encoding="utf-8").splitlines():
            fields = line.split()
            start, length = float(fields[3]), float(fields[4])
            turns.setdefault(_ascii(fields[1]), []).append((start, start + length, fields[7]))
    return turns


def _ami_file(name: str) -> str:
    return next(p.name for p in _ami_folder().glob("*.wav") if _ascii(p.stem) == name)


def _ascii(name: str) -> str:
    """One excerpt is spelt with a tilde in its file name, to test file names."""
    decomposed = unicodedata.normalize("NFKD", name)
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def _ami_folder() -> Path:
    wanted = (f"{AMI_FOLDER}", "pyannote_audio-4.0.7/LICENSE")
    return unpacked(AMI, lambda path: path.startswith(wanted)) / AMI_FOLDER
