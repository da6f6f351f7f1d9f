"""Items of one to four people: which clips follow each other, and the data directory of them.

Every draw is made of `random.Random(TEXT).random()`, whose sequence Python promises to keep; the
order of files, sets and hashes of a machine has no part in it.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

from pam.atomic import write_json
from pam.data.audio import load_audio, write_flac
from pam.data.concat import concat_entry
from pam.data.datadir import DataDir
from pam.data.workers import run_tasks
from pam.errors import PamError
from pam.log import get_logger, progress

TASK = "snv"
WORDS = ("one", "two", "three", "four")
MOST = len(WORDS)
ITEMS_PER_TASK = 64
T = TypeVar("T")
logger = get_logger("prepare")


@dataclass(frozen=True)
class Item:
    """`clips` in the order of the item, by `speakers` different people."""

    utt: str
    speakers: int
    clips: tuple[str, ...]


def draw_items(
    speakers: Mapping[str, Sequence[str]], name: str, count: int, segments: int, seed: int
) -> list[Item]:
    """`count` items, each answer equally often, in blocks of four of random order.

    Args:
        speakers: {speaker: names of the clips}.
        segments: clips of each item, whatever the answer; then only people with as many clips
            are used, so that the choice of people does not depend on the answer. 0: one clip of
            each person.
    """
    if count < 1:
        raise PamError(f"--num_items {count}: give 1 or more")
    if segments and segments < MOST:
        raise PamError(f"--segments {segments}: {MOST} people need at least {MOST}; or give 0")
    pool = [speaker for speaker in sorted(speakers) if len(speakers[speaker]) >= (segments or 1)]
    if len(pool) < MOST:
        raise PamError(
            f"{name}: {len(pool)} people have {segments or 1} clips or more, {MOST} are needed: "
            "use more of the corpus, or fewer --segments"
        )
    items = []
    for number, answer in zip(range(count), _answers(name, seed), strict=False):
        utt = f"{name}-{number:06d}"
        rng = Random(f"{seed} {utt}")
        people = [pool[place] for place in _distinct(rng, len(pool), answer)]
        items.append(Item(utt, answer, _clips(rng, people, speakers, segments)))
    return items


def _answers(name: str, seed: int) -> Iterator[int]:
    block = 0
    while True:
        yield from _shuffled(Random(f"{seed} {name} block {block}"), range(1, MOST + 1))
        block += 1


def _clips(
    rng: Random, people: Sequence[str], speakers: Mapping[str, Sequence[str]], segments: int
) -> tuple[str, ...]:
    turns = list(range(len(people)))  # everybody speaks once; the further speakers are drawn
    turns += [_below(rng, len(people)) for _ in range(segments - len(people))]
    chosen = []
    for person, speaker in enumerate(people):
        clips = speakers[speaker]
        chosen += [clips[place] for place in _distinct(rng, len(clips), turns.count(person))]
    return tuple(_shuffled(rng, chosen))


def _below(rng: Random, number: int) -> int:
    return int(rng.random() * number)


def _distinct(rng: Random, number: int, count: int) -> list[int]:
    """`count` different numbers below `number`."""
    chosen: list[int] = []
    while len(chosen) < count:
        place = _below(rng, number)
        if place not in chosen:
            chosen.append(place)
    return chosen


def _shuffled(rng: Random, values: Sequence[T]) -> list[T]:
    return sorted(values, key=lambda _: rng.random())


def manifest_sha256(items: Sequence[Item]) -> str:
    """What the items are, without a folder of this machine."""
    digest = hashlib.sha256()
    for item in items:
        digest.update("\t".join([item.utt, str(item.speakers), *item.clips, "\n"]).encode())
    return digest.hexdigest()


def write_items(
    out: Path, name: str, items: Sequence[Item], clips: Path, copy: bool, nj: int
) -> str:
    """Write data/NAME and its manifest.json, and with `copy` the audio; returns the sha256."""
    sha256 = manifest_sha256(items)
    entries = {
        item.utt: concat_entry([(str(clips / clip), None, None) for clip in item.clips])
        for item in items
    }
    if copy:
        entries = _copies(entries, out / "audio" / name / sha256[:12], nj)
    files = {
        "wav.scp": entries,
        "text": {item.utt: WORDS[item.speakers - 1] for item in items},
        "utt2spk": {item.utt: item.utt for item in items},  # several people: one of its own
        "utt2task": {item.utt: TASK for item in items},
    }
    used = {clip for item in items for clip in item.clips}
    summary = {"sha256": sha256, "items": len(items), "clips": len(used)}
    (out / name).mkdir(parents=True, exist_ok=True)
    write_json(out / name / "manifest.json", summary)
    DataDir(files).write(out / name)
    return sha256


def _copies(entries: Mapping[str, str], folder: Path, nj: int) -> dict[str, str]:
    """Each item as a FLAC file of its own; those that an earlier run has written stay.

    An item with a clip that cannot be read stays a concatenation: stage 2 counts it as bad.
    """
    files = {utt: (folder / f"{utt}.flac").absolute() for utt in entries}
    jobs = [(utt, entries[utt], file) for utt, file in files.items() if not file.is_file()]
    tasks = [jobs[at : at + ITEMS_PER_TASK] for at in range(0, len(jobs), ITEMS_PER_TASK)]
    bad: dict[str, str] = {}
    for found in progress(run_tasks(_copy, tasks, nj), len(tasks), folder.parent.name):
        bad |= found
    if bad:
        first = min(bad)
        logger.warning("%d items are not copied, the first is %s: %s", len(bad), first, bad[first])
    return {utt: entries[utt] if utt in bad else str(file) for utt, file in files.items()}


def _copy(jobs: Sequence[tuple[str, str, Path]]) -> dict[str, str]:
    """Write the files of (item, entry, file); {item: why it cannot be read}."""
    bad = {}
    for utt, entry, file in jobs:
        try:
            audio = load_audio(entry)
        except PamError as error:
            bad[utt] = str(error)
        else:
            write_flac(file, audio)
    return bad
