"""Labelled sounds out of six packages: the clips of a label (sounds.tsv), and their splits.

A line of sounds.tsv names a label, the words for it, and its clips as PACKAGE:END_OF_PATH. The
table was made by hand from the packages' file names; names that say nothing about the sound are
left out, and so are recordings that occur twice under different names.
"""

import functools
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from mini_captions import Phrase
from mini_rcc import read_rcc

from pam.data.audio import load_audio
from pam.errors import PamError
from pam.paths import cache_dir
from pam.rate import SAMPLE_RATE
from tools.fetch_corpora import complete_folder, unpacked

TABLE = Path(__file__).with_name("sounds.tsv")
AUDIO = (".wav", ".ogg", ".mp3", ".flac")
# Short name → package and the folder with its sounds.
SOURCES = {
    "qabcs": ("qabcs-data", "usr/share/qabcs/abcs/all/"),
    "scratch": ("scratch", "usr/share/scratch/Media/Sounds/"),
    "lincity": ("lincity-ng-data", "usr/share/games/lincity-ng/sounds/"),
    "sonic": ("sonic-pi-samples", "usr/share/sonic-pi/samples/"),
    "tux": ("tuxpaint-stamps-default", "usr/share/tuxpaint/stamps/"),
    "gcompris": ("gcompris-qt-data", "usr/share/gcompris-qt/"),
}
UNSEEN_SHARE = 0.2  # of the labels; their clips are in test_unseen only

SILENCE_DB = -45.0  # below the loudest frame: cut off at both ends
FRAME_SAMPLES = SAMPLE_RATE // 100
SHORT_SECONDS, REPEATED_SECONDS, REPEAT_GAP_SECONDS = 0.8, 1.6, 0.25


@dataclass(frozen=True)
class Sound:
    """A label with its words and its clips."""

    label: str
    phrase: Phrase
    clips: tuple[str, ...]


def read_sounds(path: Path = TABLE) -> list[Sound]:
    """The sounds of the table, checked; `PamError` names a bad line."""
    sounds, used = [], set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        fields = line.split("\t")
        clips = tuple(fields[-1].split())
        if len(fields) != 5 or not clips or used & {fields[0], *clips}:
            raise PamError(f"{path}:{number}: {line!r}: needs five fields, nothing twice")
        used |= {fields[0], *clips}
        sounds.append(Sound(fields[0], Phrase(*fields[1:4]), clips))
    return sounds


def split_sounds(sounds: list[Sound]) -> dict[str, list[Sound]]:
    """train, dev, test and test_unseen with the clips each may use; the same for every seed.

    A fifth of the labels is never trained on. Of the others, one clip is kept for the test where
    there are two or more, one for dev where there are three or more.
    """
    by_hash = sorted(sounds, key=lambda sound: _hash(sound.label))
    unseen = {sound.label for sound in by_hash[: round(UNSEEN_SHARE * len(by_hash))]}
    parts: dict[str, list[Sound]] = {"train": [], "dev": [], "test": [], "test_unseen": []}
    for sound in sounds:
        clips = tuple(sorted(sound.clips, key=_hash))
        shares = {"test_unseen": clips}
        if sound.label not in unseen:
            tests, devs = int(len(clips) >= 2), int(len(clips) >= 3)
            shares = {
                "test": clips[:tests],
                "dev": clips[tests : tests + devs],
                "train": clips[tests + devs :],
            }
        for part, some in shares.items():
            if some:
                parts[part].append(Sound(sound.label, sound.phrase, some))
    return parts


def _hash(name: str) -> int:
    return zlib.crc32(name.encode())


def sound_files() -> Mapping[str, Path]:
    """Every clip of the packages as PACKAGE:path without extension → file."""
    return {f"{source}:{end}": path for source in SOURCES for end, path in _files(source)}


def _files(source: str) -> Iterator[tuple[str, Path]]:
    root = _folder(source)
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in AUDIO:
            yield path.relative_to(root).with_suffix("").as_posix(), path


def _folder(source: str) -> Path:
    package, inside = SOURCES[source]
    if source == "gcompris":
        return _unpacked_gcompris()
    return unpacked(package, lambda path: _is_wanted(path, package, inside)) / inside


def _is_wanted(path: str, package: str, inside: str) -> bool:
    is_sound = path.startswith(inside) and path.lower().endswith((*AUDIO, ".rcc"))
    return is_sound or path == f"usr/share/doc/{package}/copyright"


def _unpacked_gcompris() -> Path:
    """Its sounds lie in Qt resource files."""
    final = cache_dir() / "corpora" / "gcompris-sounds"
    if final.is_dir():
        return final
    package, inside = SOURCES["gcompris"]
    packed = unpacked(package, lambda path: _is_wanted(path, package, inside))
    with complete_folder(final) as part:
        for resource in sorted(packed.rglob("*.rcc")):
            for name, content in read_rcc(resource):
                if name.lower().endswith(AUDIO) and ".." not in Path(name).parts:
                    (part / name).parent.mkdir(parents=True, exist_ok=True)
                    (part / name).write_bytes(content)
    return final


@functools.cache
def clip_paths() -> dict[str, Path]:
    """The file of every clip in the table; a clip that is not there exactly once is an error."""
    files = sound_files()
    found = {}
    for sound in read_sounds():
        for clip in sound.clips:
            found[clip] = find_clip(clip, files)
    return found


def find_clip(clip: str, files: Mapping[str, Path]) -> Path:
    """The one file whose path ends with the clip's."""
    source, end = clip.split(":", 1)
    hits = [
        path
        for name, path in files.items()
        if name == clip or (name.startswith(f"{source}:") and name.endswith(f"/{end}"))
    ]
    if len(hits) != 1:
        raise PamError(f"{TABLE.name}: clip {clip!r} names {len(hits)} files: make it name one")
    return hits[0]


@functools.lru_cache(maxsize=512)
def clip_audio(path: Path) -> Float[np.ndarray, " N"]:
    """A clip without silence at its ends; a very short one is repeated, as in "a dog barks"."""
    return repeated(trimmed(load_audio(path)))


def trimmed(samples: Float[np.ndarray, " N"]) -> Float[np.ndarray, " M"]:
    """Cut what lies `SILENCE_DB` below the loudest frame off both ends."""
    count = -(-len(samples) // FRAME_SAMPLES)
    padded = np.pad(samples, (0, count * FRAME_SAMPLES - len(samples)))
    power = (padded.reshape(count, FRAME_SAMPLES) ** 2).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (SILENCE_DB / 10))
    if not len(loud):
        return samples
    return samples[loud[0] * FRAME_SAMPLES : (loud[-1] + 1) * FRAME_SAMPLES]


def repeated(samples: Float[np.ndarray, " N"]) -> Float[np.ndarray, " M"]:
    if len(samples) >= SHORT_SECONDS * SAMPLE_RATE:
        return samples
    gap = np.zeros(round(REPEAT_GAP_SECONDS * SAMPLE_RATE), np.float32)
    unit = np.concatenate([samples, gap])
    count = -(-round(REPEATED_SECONDS * SAMPLE_RATE) // len(unit))
    return np.tile(unit, count)[: -len(gap)]
