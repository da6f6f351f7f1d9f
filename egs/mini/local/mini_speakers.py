"""snv: how many people speak? Items of one to four actors of the game; length is no clue.

Every item has four segments, drawn the same way whatever the answer: their lengths, the pauses and
the level say nothing about it. An actor has one character's voice within an item, so two voices
are always two people.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from mini_items import Item, rng_for
from mini_mix import at_level, faded, loudest_start, silence
from mini_speech import ACTOR_OF, SPLITS, Speech, all_speech, voice_audio

from pam.rate import SAMPLE_RATE

SEGMENTS = 4
COUNTS = (1, 2, 3, 4)
ANSWERS = {1: "one", 2: "two", 3: "three", 4: "four"}
SEGMENT_SECONDS = (1.0, 1.5)
PAUSE_SECONDS = (0.1, 0.3)
TEST_CHARACTERS = (*SPLITS["dev"], *SPLITS["test"])  # four actors who are never trained on
DEV_SHARE = 7  # every seventh line of the training actors is kept for dev


@dataclass(frozen=True)
class Segment:
    """The part of `seconds` of a recording with most energy, after a pause."""

    source: str
    seconds: float
    pause: float


@dataclass(frozen=True)
class Voice:
    """Somebody in an item: a person's name and the recordings to draw from."""

    person: str
    sources: tuple[str, ...]


def voices_of(split: str) -> dict[str, list[Voice]]:
    """Person → voices (characters); train and dev share people, not lines; test has its own."""
    by_voice: dict[tuple[str, str], list[str]] = {}
    for speech in _usable(split):
        by_voice.setdefault((speech.actor, speech.character), []).append(speech.voice)
    people: dict[str, list[Voice]] = {}
    for (actor, _), sources in sorted(by_voice.items()):
        people.setdefault(actor, []).append(Voice(actor, tuple(sources)))
    return people


def _usable(split: str) -> list[Speech]:
    lines = [s for s in all_speech() if s.character in ACTOR_OF and s.seconds >= SEGMENT_SECONDS[1]]
    if split == "test":
        return [s for s in lines if s.character in TEST_CHARACTERS]
    lines = [s for s in lines if s.character not in TEST_CHARACTERS]
    return [s for i, s in enumerate(lines) if (i % DEV_SHARE == 0) == (split == "dev")]


def speaker_items(split: str, count: int, seed: int) -> list[Item]:
    """snv_SPLIT, with equally many items of each answer."""
    return counted_items(f"snv-{split}", voices_of(split), count, seed)


def counted_items(prefix: str, people: dict[str, list[Voice]], count: int, seed: int) -> list[Item]:
    """`count` items of one to four of these people, as many of each answer as of the others."""
    items = []
    for i in range(count):
        rng = rng_for(seed, prefix, str(i))
        persons = speaker_order(COUNTS[i % len(COUNTS)], sorted(people), rng)
        items.append(_item(f"{prefix}-{i:05d}", persons, people, rng))
    return items


def speaker_order(count: int, people: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Who speaks in each segment: `count` different people, everybody at least once."""
    chosen = [str(name) for name in rng.choice(list(people), count, replace=False)]
    extra = [str(name) for name in rng.choice(chosen, SEGMENTS - count)]
    return [(chosen + extra)[i] for i in rng.permutation(SEGMENTS)]


def _item(
    utt: str, persons: Sequence[str], people: dict[str, list[Voice]], rng: np.random.Generator
) -> Item:
    voice = {name: _draw_voice(people[name], rng) for name in sorted(set(persons))}
    unused = {name: list(rng.permutation(voice[name].sources)) for name in voice}
    segments = tuple(
        Segment(
            source=str(unused[name].pop() if unused[name] else rng.choice(voice[name].sources)),
            seconds=round(float(rng.uniform(*SEGMENT_SECONDS)), 3),
            pause=round(float(rng.uniform(*PAUSE_SECONDS)), 3),
        )
        for name in persons
    )
    answer = ANSWERS[len(voice)]
    tables = {"text_warmup": " ".join(persons)}
    return Item(utt, utt, answer, segments, tables, sources=tuple(voice))


def _draw_voice(voices: Sequence[Voice], rng: np.random.Generator) -> Voice:
    """A character of the actor: the more lines, the likelier."""
    lines = np.array([len(voice.sources) for voice in voices], float)
    return voices[int(rng.choice(len(voices), p=lines / lines.sum()))]


def render_speakers(item: Item) -> Float[np.ndarray, " N"]:
    return joined([(voice_audio(s.source), s) for s in item.recipe])


def joined(parts: Sequence[tuple[Float[np.ndarray, " N"], Segment]]) -> Float[np.ndarray, " M"]:
    """The segments one after the other, all at the same level, exactly as long as planned."""
    pieces = []
    for samples, segment in parts:
        length = round(segment.seconds * SAMPLE_RATE)
        start = loudest_start(samples, length)
        part = faded(at_level(samples[start : start + length]))
        pieces += [silence(segment.pause), np.pad(part, (0, length - len(part)))]
    return np.concatenate(pieces)
