"""A set of the mini recipe: items with ids and texts, rendered to audio and a data directory.

An item holds everything its audio depends on, so a set is complete when wav.scp exists and the
items are the same as before. Files of a killed run are used again, those of other
options are removed.
"""

import hashlib
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pam.atomic import write_text
from pam.data.audio import num_samples, write_flac
from pam.data.corpus import cluster_id
from pam.data.datadir import DataDir
from pam.log import progress
from pam.rate import SAMPLE_RATE

RECIPE_VERSION = 2  # raise it when the same items would sound different
PEAK = 0.95
FINGERPRINT = "items.sha256"
ITEMS_A_TURN = 16


@dataclass(frozen=True)
class Item:
    """One utterance: `tables` are further files (text_ref2 …), `recipe` is what makes its audio.

    `sources` are the recordings or people in it: items that share one are not independent.
    """

    id: str
    speaker: str
    text: str
    recipe: Any
    tables: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()


Render = Callable[[Item], Float[np.ndarray, " N"]]


@dataclass(frozen=True)
class SetSummary:
    """The summary of a set."""

    name: str
    items: int
    hours: float
    speakers: int


def rng_for(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on the seed and the names only, not on what was drawn before."""
    return np.random.default_rng([seed, zlib.crc32("/".join(names).encode())])


def choose(pool: Sequence[Any], count: int | None, rng: np.random.Generator) -> list[Any]:
    """`count` members of the pool in the pool's order; all where it is None or has no more."""
    if count is None or count >= len(pool):
        return list(pool)
    return [pool[i] for i in sorted(rng.choice(len(pool), count, replace=False))]


def limited(samples: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """The same samples, turned down where they would clip."""
    peak = float(np.abs(samples).max(initial=0.0))
    return samples * np.float32(PEAK / peak) if peak > PEAK else samples


def write_set(
    out: Path, name: str, task: str, items: Sequence[Item], render: Render, nj: int
) -> SetSummary:
    """Make data/NAME and data/audio/NAME with `nj` processes; nothing is done twice."""
    data, audio = out / name, out / "audio" / name
    fingerprint = _fingerprint(items) + "\n"
    same = (audio / FINGERPRINT).is_file() and (audio / FINGERPRINT).read_text() == fingerprint
    if not same:
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(audio, ignore_errors=True)
        audio.mkdir(parents=True)
        write_text(audio / FINGERPRINT, fingerprint)
    if not (data / "wav.scp").is_file():
        seconds = _render_all(items, audio, render, nj, name)
        _data_dir(task, items, audio, seconds).write(data)
    found = DataDir.read(data)
    total = sum(map(float, found["utt2dur"].values()))
    return SetSummary(name, len(found), total / 3600, len(set(found["utt2spk"].values())))


def clusters_of(items: Sequence[Item]) -> dict[str, str]:
    """Items that share a source, directly or by way of others, are one cluster.

    Its name is that of its first source in C order.
    """
    parent: dict[str, str] = {}

    def root(source: str) -> str:
        while (above := parent.setdefault(source, source)) != source:
            source = above
        return source

    sources = {item.id: item.sources or (item.id,) for item in items}
    for first, *others in sources.values():
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return {utt: cluster_id(root(first)) for utt, (first, *_) in sources.items()}


def _fingerprint(items: Sequence[Item]) -> str:
    digest = hashlib.sha256(f"version {RECIPE_VERSION}\n".encode())
    for item in items:
        digest.update(f"{item!r}\n".encode())
    return digest.hexdigest()


def _render_all(
    items: Sequence[Item], audio: Path, render: Render, nj: int, name: str
) -> dict[str, float]:
    jobs = [(item, audio / f"{item.id}.flac", render) for item in items]
    if nj == 1:
        return dict(progress(map(_render_one, jobs), len(jobs), name))
    with ProcessPoolExecutor(nj) as pool:
        done = pool.map(_render_one, jobs, chunksize=ITEMS_A_TURN)
        return dict(progress(done, len(jobs), name))


def _render_one(job: tuple[Item, Path, Render]) -> tuple[str, float]:
    item, path, render = job
    if not path.is_file():
        write_flac(path, limited(render(item)))
    return item.id, num_samples(path) / SAMPLE_RATE


def _data_dir(
    task: str, items: Sequence[Item], audio: Path, seconds: Mapping[str, float]
) -> DataDir:
    files: dict[str, dict[str, str]] = {
        "wav.scp": {item.id: str((audio / f"{item.id}.flac").resolve()) for item in items},
        "text": {item.id: item.text for item in items},
        "utt2spk": {item.id: item.speaker for item in items},
        "utt2cluster": clusters_of(items),
        "utt2task": {item.id: task for item in items},
        "utt2dur": {item.id: f"{seconds[item.id]:.3f}" for item in items},
    }
    for item in items:
        for name, value in item.tables.items():
            files.setdefault(name, {})[item.id] = value
    return DataDir(files)
