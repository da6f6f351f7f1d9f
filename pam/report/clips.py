"""Audio clips for the page, as MP3 in base64, which is small and works in every browser."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from pam.data.audio import load_audio
from pam.data.datadir import DataDir
from pam.data.sample import even_places
from pam.errors import PamError
from pam.log import get_logger
from pam.rate import SAMPLE_RATE
from pam.report.answers import DecodedSet

MEDIA_TYPE = "audio/mpeg"
QUOTES = len('"",')
# This is the longest reason: the size of a page without clips is an upper bound for its text.
NOT_CHOSEN = "No audio: this page holds the clips of only {count} answers per set (--html_clips)."
NO_FOLDER = "No audio: {folder} could not be read when this page was written (--html_data)."
NO_FILE = "No audio: the clip could not be read when this page was written."
NO_ROOM = "No audio: with this clip the page would be too large."

logger = get_logger(__name__)


@dataclass
class SetClips:
    """The clips of a set: utterance → index in `Clips.audio`, or the reason why it has none.

    `otherwise` is the reason for all other utterances.
    """

    otherwise: str
    places: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def of(self, utt: str) -> int | str:
        """The index of an utterance's clip, or the reason why there is none."""
        return self.places.get(utt, self.missing.get(utt, self.otherwise))


@dataclass
class Clips:
    """`audio` holds each clip once, in base64; `sets` are in the order of the decoded sets."""

    audio: list[str] = field(default_factory=list)
    sets: list[SetClips] = field(default_factory=list)


def take_clips(
    sets: Sequence[DecodedSet], folders: Sequence[Path], count: int, budget: int
) -> Clips:
    """`count` clips of every set, evenly spread, within `budget` bytes of JSON.

    `folders` are the data directories of `sets`. The sets take turns, so that they share a small
    budget.
    """
    directories = {folder: _directory(folder) for folder in dict.fromkeys(folders)}
    taken: dict[tuple[Path, str], int] = {}
    clips = Clips(sets=[SetClips(_otherwise(f, directories[f], count)) for f in folders])
    for number, place in _turns(sets, count):
        folder, utt = folders[number], sets[number].items[place].id
        directory, found = directories[folder], clips.sets[number]
        if directory is None:
            continue
        if (folder, utt) not in taken:
            encoded = _clip(directory, utt)
            if encoded is None or len(encoded) + QUOTES > budget:
                found.missing[utt] = NO_FILE if encoded is None else NO_ROOM
                continue
            budget -= len(encoded) + QUOTES
            taken[folder, utt] = len(clips.audio)
            clips.audio.append(encoded)
        found.places[utt] = taken[folder, utt]
    return clips


def encode(samples: Float[np.ndarray, " N"]) -> str:
    """Mono samples at 16 kHz as MP3 in base64, 5 to 7 kB per second."""
    mp3 = io.BytesIO()
    soundfile.write(mp3, samples, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III")
    return base64.b64encode(mp3.getvalue()).decode("ascii")


def _turns(sets: Sequence[DecodedSet], count: int) -> list[tuple[int, int]]:
    """(index of the set, index in the set): the first choice of every set, then the second, …"""
    chosen = [
        (turn, number, place)
        for number, one in enumerate(sets)
        for turn, place in enumerate(even_places(count, len(one.items)))
    ]
    return [(number, place) for _, number, place in sorted(chosen)]


def _otherwise(folder: Path, directory: DataDir | None, count: int) -> str:
    if directory is None:
        return NO_FOLDER.format(folder=f"{folder.parent.name}/{folder.name}")
    return NOT_CHOSEN.format(count=count)


def _directory(folder: Path) -> DataDir | None:
    try:
        return DataDir.read(folder)
    except PamError as error:
        logger.warning("no audio in the page: %s", error)
        return None


def _clip(directory: DataDir, utt: str) -> str | None:
    """The encoded clip; None, with a warning, if it cannot be read."""
    try:
        return encode(load_audio(*directory.audio(utt)))
    except PamError as error:
        logger.warning("no audio of %s in the page: %s", utt, error)
    except KeyError:
        logger.warning("no audio of %s in the page: it is not in the data directory", utt)
    return None
