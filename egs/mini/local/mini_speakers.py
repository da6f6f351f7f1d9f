"""snv: how many people speak? Items of one to four actors of the game; length is no clue.

The number of segments, their lengths, the pauses and the level are drawn the same way whatever the
answer. A test item has four segments, a training item two to six; of two segments only one or two
people can be the answer, and each answer that is possible is equally frequent. An actor has one
character's voice within an item, so two voices are always two people. Two thirds of the training
items are in a room, over the noise of a scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from mini_items import Item, rng_for
from mini_mix import at_level, faded, loudest_start, mix_at_snr, silence
from mini_noisy import ROOMS, ambience_clips, ambience_in_room, reverberant, room_bank
from mini_speech import ACTOR_OF, SPLITS, Speech, all_speech, voice_audio

from pam.errors import PamError
from pam.rate import SAMPLE_RATE

TEST_SEGMENTS = 4
COUNTS = (1, 2, 3, 4)
# Number of segments → how many of 60 items of train and dev: 17, 17, 14 and 12 of each answer.
SEGMENTS_OF_60 = {2: 6, 3: 6, 4: 16, 5: 16, 6: 16}
MIN_LINES = max(SEGMENTS_OF_60)  # of a voice in train and dev: each segment is another line
ANSWERS = {1: "one", 2: "two", 3: "three", 4: "four"}
SEGMENT_SECONDS = (1.0, 1.5)
PAUSE_SECONDS = (0.1, 0.3)
TEST_CHARACTERS = (*SPLITS["dev"], *SPLITS["test"])  # four actors who are never trained on
SHARE_IN_ROOMS = 2 / 3  # of the training items
ROOM_SNR_DB = (10.0, 30.0)
DEV_SHARE = 7  # every seventh line of the training actors is kept for dev


@dataclass(frozen=True)
class Segment:
    """The part of `seconds` of a recording with most energy, after a pause."""

    source: str
    seconds: float
    pause: float


@dataclass(frozen=True)
class InRoom:
    """Segments in a room of the training bank of `seed`, over a noise from sample `offset` on."""

    segments: tuple[Segment, ...]
    seed: int
    room: int
    ambience: str
    snr_db: float
    offset: int


@dataclass(frozen=True)
class Voice:
    """Somebody in an item: a person's name and the recordings to draw from.

    `weight`: how likely this voice of a person is; 0: the more recordings, the likelier.
    """

    person: str
    sources: tuple[str, ...]
    weight: int = 0


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
    """snv_SPLIT. In train and dev all characters of an actor are equally likely; an actor without
    a character of enough lines is left out."""
    people = voices_of(split)
    if split == "test":
        return counted_items(f"snv-{split}", people, balanced_layouts(count), seed)
    enough: dict[str, list[Voice]] = {}
    for person, voices in people.items():
        for voice in voices:
            if len(voice.sources) >= MIN_LINES:
                enough.setdefault(person, []).append(replace(voice, weight=1))
    layouts = training_layouts(count, rng_for(seed, "snv", split, "layouts"))
    items = counted_items(f"snv-{split}", enough, layouts, seed)
    return [in_some_room(item, seed) for item in items] if split == "train" else items


def in_some_room(item: Item, seed: int) -> Item:
    """The item in a room, or as it is; the draw does not depend on the answer."""
    rng = rng_for(seed, "snv", "room", item.id)
    if rng.random() >= SHARE_IN_ROOMS:
        return item
    recipe = InRoom(
        segments=item.recipe,
        seed=seed,
        room=int(rng.integers(ROOMS["train"])),
        ambience=str(rng.choice(ambience_clips("train"))),
        snr_db=round(float(rng.uniform(*ROOM_SNR_DB)), 2),
        offset=int(rng.integers(SAMPLE_RATE * 60)),
    )
    return replace(item, recipe=recipe)


def balanced_layouts(count: int) -> list[tuple[int, int]]:
    """(segments, people) of each item, as many items of each answer as of the others."""
    return [(TEST_SEGMENTS, COUNTS[i % len(COUNTS)]) for i in range(count)]


def training_layouts(count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """(segments, people): of so many segments each possible answer is equally frequent."""
    of_60 = [
        (segments, 1 + i % min(segments, max(COUNTS)))
        for segments, items in SEGMENTS_OF_60.items()
        for i in range(items)
    ]
    layouts: list[tuple[int, int]] = []
    while len(layouts) < count:
        layouts += [of_60[i] for i in rng.permutation(len(of_60))]
    return layouts[:count]


def counted_items(
    prefix: str, people: dict[str, list[Voice]], layouts: Sequence[tuple[int, int]], seed: int
) -> list[Item]:
    """An item of these people for each layout. `PamError` if there are too few people."""
    needed = max((count for _, count in layouts), default=0)
    if len(people) < needed:
        raise PamError(
            f"{prefix}: {len(people)} people with enough recordings, an item needs {needed}: "
            "fetch the corpus again"
        )
    items = []
    for i, (segments, count) in enumerate(layouts):
        rng = rng_for(seed, prefix, str(i))
        persons = speaker_order(count, sorted(people), rng, segments)
        items.append(_item(f"{prefix}-{i:05d}", persons, people, rng))
    return items


def speaker_order(
    count: int, people: Sequence[str], rng: np.random.Generator, segments: int = TEST_SEGMENTS
) -> list[str]:
    """Who speaks in each segment: `count` different people, everybody at least once."""
    chosen = [str(name) for name in rng.choice(list(people), count, replace=False)]
    extra = [str(name) for name in rng.choice(chosen, segments - count)]
    return [(chosen + extra)[i] for i in rng.permutation(segments)]


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
    weights = np.array([voice.weight or len(voice.sources) for voice in voices], float)
    return voices[int(rng.choice(len(voices), p=weights / weights.sum()))]


def segments_of(item: Item) -> tuple[Segment, ...]:
    return item.recipe.segments if isinstance(item.recipe, InRoom) else item.recipe


def render_speakers(item: Item) -> Float[np.ndarray, " N"]:
    speech = joined([(voice_audio(s.source), s) for s in segments_of(item)])
    if not isinstance(item.recipe, InRoom):
        return speech
    place = item.recipe
    rooms = room_bank("train", place.seed)[place.room]
    noise = ambience_in_room(place.ambience, rooms, len(speech), place.offset)
    return at_level(mix_at_snr(reverberant(speech, rooms[0]), noise, place.snr_db))


def joined(parts: Sequence[tuple[Float[np.ndarray, " N"], Segment]]) -> Float[np.ndarray, " M"]:
    """The segments one after the other, all at the same level, exactly as long as planned."""
    pieces = []
    for samples, segment in parts:
        length = round(segment.seconds * SAMPLE_RATE)
        start = loudest_start(samples, length)
        part = faded(at_level(samples[start : start + length]))
        pieces += [silence(segment.pause), np.pad(part, (0, length - len(part)))]
    return np.concatenate(pieces)
