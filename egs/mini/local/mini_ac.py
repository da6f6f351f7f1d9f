"""ac: captions of single sounds, of two or three in sequence, and of one over another or speech.

`dev` and `test` have labels of the training set in clips of their own, `test_unseen` has labels
that are never trained on. Evaluation sets start with every clip alone, then mixtures of them. In
training all labels are equally frequent, and so are the clips of a label.
"""

import functools
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from mini_captions import NUM_REFERENCES, OVERLAY, SEQUENCE, Phrase, captions, shuffled_captions
from mini_items import Item, rng_for
from mini_mix import at_level, faded, gain, silence
from mini_sounds import Sound, clip_audio, clip_paths, read_sounds, split_sounds
from mini_speech import all_speech, split_of, voice_audio

from pam.rate import SAMPLE_RATE

MAX_SECONDS = 8.0
# Kind of item → how likely; a mixture never has a label twice.
KINDS = {"single": 0.4, "two": 0.2, "three": 0.1, "overlay": 0.15, "speech": 0.15}
# In training a man and a woman are two labels among many.
TRAINING_KINDS = {"single": 0.45, "two": 0.2, "three": 0.1, "overlay": 0.2, "speech": 0.05}
SOUNDS_OF = {"single": 1, "speech": 1, "two": 2, "overlay": 2, "three": 3}
LONGEST_PART = {1: 7.0, 2: 3.5, 3: 2.4}  # seconds a sound has in a sequence of so many
GAP_SECONDS = (0.1, 0.4)
LEVEL_RANGE_DB = (-3.0, 3.0)
BACKGROUND_DB = (-9.0, -3.0)  # what is behind, relative to what is in front
SPEECH_SECONDS = (1.5, 5.0)

# Whose voice is in "a man speaks": the training characters, or those of the speech's dev and test.
MEN = {"train": ("JOE", "SPARKY", "FRANK", "HENRY", "BUD"), "other": ("BOB", "IAN", "CHIEF")}
WOMEN = {"train": ("SEC", "NAOMI", "PRIN", "ZOMBIE"), "other": ("FAYE", "LOU")}
SPEAKS = {
    "man": Phrase("a man", "speaks", "speaking"),
    "woman": Phrase("a woman", "speaks", "speaking"),
}


@dataclass(frozen=True)
class Part:
    """A sound of an item: a clip of the table or a "voice:" of the game, its cut and level."""

    clip: str
    offset: float
    longest: float
    level_db: float
    gap: float


@dataclass(frozen=True)
class Mixture:
    arrangement: str
    parts: tuple[Part, ...]
    labels: tuple[str, ...] = ()


Clip = tuple[Sound, str]


class Deck:
    """Labels dealt in rounds, each once a round in a new order; a label's clips take turns.

    `turns` counts how often a label was dealt; decks that share it share the clips' turns.
    """

    def __init__(self, sounds: Sequence[Sound], rng: np.random.Generator, turns: Counter[str]):
        self.sounds, self.rng, self.turns = sounds, rng, turns
        self.rest: list[Sound] = []
        self.dealt: Counter[str] = Counter()

    def deal(self, count: int) -> tuple[Clip, ...]:
        """`count` different labels, each with a clip."""
        chosen: list[Clip] = []
        while len(chosen) < count:
            if not self.rest:
                self.rest = [self.sounds[i] for i in self.rng.permutation(len(self.sounds))]
            sound = self.rest.pop()
            if any(sound == other for other, _ in chosen):  # a new round has begun
                self.rest.insert(0, sound)
                continue
            chosen.append((sound, sound.clips[self.turns[sound.label] % len(sound.clips)]))
            self.turns[sound.label] += 1
            self.dealt[sound.label] += 1
        return tuple(chosen)


@functools.cache
def sounds_of(split: str) -> tuple[Sound, ...]:
    return tuple(split_sounds(read_sounds())[split])


def sound_items(split: str, count: int, seed: int) -> list[Item]:
    """ac_SPLIT: `count` items, each with five references."""
    if split == "train":
        return _training_items(count, seed)
    sounds = sounds_of(split)
    alone = [(s, clip) for s in sounds for clip in s.clips]
    order = rng_for(seed, "ac", split).permutation(len(alone))[:count]
    singles = [(alone[i],) for i in sorted(order)]
    items = []
    for i in range(count):
        utt = f"ac-{split}-{i:05d}"
        rng = rng_for(seed, utt)
        kind = "single" if i < len(singles) else _draw_kind(split, rng)
        chosen = singles[i] if i < len(singles) else _draw_clips(sounds, kind, rng)
        items.append(_item(utt, split, kind, chosen, rng))
    return items


def _training_items(count: int, seed: int) -> list[Item]:
    """Labels are dealt for sounds alone and for mixtures, so that both are balanced."""
    turns: Counter[str] = Counter()
    alone, mixed = (
        Deck(sounds_of("train"), rng_for(seed, "ac", "train", name), turns)
        for name in ("one", "more")
    )
    kinds: Counter[str] = Counter()
    items = []
    for i in range(count):
        utt = f"ac-train-{i:05d}"
        rng = rng_for(seed, utt)
        kind = _draw_kind("train", rng)
        chosen = (alone if kind == "single" else mixed).deal(SOUNDS_OF[kind])
        turn = alone.dealt[chosen[0][0].label] if kind == "single" else kinds[kind]
        kinds[kind] += 1
        items.append(_item(utt, "train", kind, chosen, rng, turn))
    return items


def _item(
    utt: str,
    split: str,
    kind: str,
    chosen: tuple[Clip, ...],
    rng: np.random.Generator,
    turn: int | None = None,
) -> Item:
    """An item of these clips. By `turn`, men and women and the wordings of a sound alternate."""
    phrases = [sound.phrase for sound, _ in chosen]
    labels = [sound.label for sound, _ in chosen]
    clips = [clip for _, clip in chosen]
    if kind == "speech":
        who, voice = _draw_voice(split, rng, turn)
        phrases, labels, clips = [SPEAKS[who], *phrases], [who, *labels], [voice, *clips]
    arrangement = OVERLAY if kind in ("overlay", "speech") else SEQUENCE
    wordings = shuffled_captions(phrases, arrangement, rng)
    if turn is not None and kind == "single":
        first = (zlib.crc32(labels[0].encode()) + turn) % NUM_REFERENCES
        wordings = np.roll(captions(phrases, arrangement), -first).tolist()
    text, *others = wordings
    tables = {f"text_ref{i}": other for i, other in enumerate(others, start=2)}
    assert len(tables) == NUM_REFERENCES - 1
    tables["text_warmup"] = " ".join(labels)
    mixture = Mixture(arrangement, _parts(clips, arrangement, rng), tuple(labels))
    return Item(utt, utt, text, mixture, tables, sources=tuple(clips))


def _draw_kind(split: str, rng: np.random.Generator) -> str:
    """The kind of a drawn item; speech is a trained label, so not among the unseen ones."""
    kinds = TRAINING_KINDS if split == "train" else KINDS
    weights = {
        kind: weight
        for kind, weight in kinds.items()
        if (split == "train" or kind != "single") and (split != "test_unseen" or kind != "speech")
    }
    total = sum(weights.values())
    return str(rng.choice(list(weights), p=[weight / total for weight in weights.values()]))


def _draw_clips(sounds: Sequence[Sound], kind: str, rng: np.random.Generator) -> tuple[Clip, ...]:
    """Different labels, each as likely as the others, with one of their clips."""
    chosen = [sounds[i] for i in rng.choice(len(sounds), SOUNDS_OF[kind], replace=False)]
    return tuple((sound, str(rng.choice(sound.clips))) for sound in chosen)


def _draw_voice(split: str, rng: np.random.Generator, turn: int | None) -> tuple[str, str]:
    is_man = rng.random() < 0.5 if turn is None else turn % 2 == 0
    who = "man" if is_man else "woman"
    cast = (MEN if who == "man" else WOMEN)["train" if split == "train" else "other"]
    return who, "voice:" + str(rng.choice(_lines_of(cast)))


@functools.cache
def _lines_of(cast: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        s.voice
        for s in all_speech()
        if s.character in cast
        and SPEECH_SECONDS[0] <= s.seconds <= SPEECH_SECONDS[1]
        and split_of(s.character) is not None
    )


def _parts(clips: Sequence[str], arrangement: str, rng: np.random.Generator) -> tuple[Part, ...]:
    longest = LONGEST_PART[1 if arrangement == OVERLAY else len(clips)]
    parts = []
    for i, clip in enumerate(clips):
        behind = arrangement == OVERLAY and i > 0
        parts.append(
            Part(
                clip=clip,
                offset=round(float(rng.random()), 4),
                longest=longest,
                level_db=round(
                    float(rng.uniform(*(BACKGROUND_DB if behind else LEVEL_RANGE_DB))), 2
                ),
                gap=round(float(rng.uniform(*GAP_SECONDS)), 3),
            )
        )
    return tuple(parts)


def most_frequent(items: Sequence[Item]) -> str:
    """How large the shares of the most frequent caption and of the most frequent label are."""
    texts = Counter(item.text for item in items)
    labels = Counter(label for item in items for label in item.recipe.labels)
    caption, captioned = texts.most_common(1)[0]
    label, labelled = labels.most_common(1)[0]
    return (
        f"the most frequent caption is that of {captioned} of {len(items)} items "
        f"({captioned / len(items):.2%}): {caption!r}; the most frequent label is one of "
        f"{labelled} of {labels.total()} ({labelled / labels.total():.2%}): {label!r}"
    )


def render_sound(item: Item) -> Float[np.ndarray, " N"]:
    mixture: Mixture = item.recipe
    pieces = [_piece(part) for part in mixture.parts]
    out = _over(*pieces) if mixture.arrangement == OVERLAY else _one_by_one(pieces, mixture)
    return out[: round(MAX_SECONDS * SAMPLE_RATE)]


def _piece(part: Part) -> Float[np.ndarray, " N"]:
    """A clip at its level, a part of it where it is too long."""
    source, name = part.clip.split(":", 1)
    samples = voice_audio(name) if source == "voice" else clip_audio(clip_paths()[part.clip])
    length = min(len(samples), round(part.longest * SAMPLE_RATE))
    start = int(part.offset * (len(samples) - length))
    return faded(at_level(samples[start : start + length])) * gain(part.level_db)


def _one_by_one(
    pieces: Sequence[Float[np.ndarray, " N"]], mixture: Mixture
) -> Float[np.ndarray, " M"]:
    gaps = [silence(part.gap) for part in mixture.parts[1:]]
    return np.concatenate(
        [pieces[0], *(x for pair in zip(gaps, pieces[1:], strict=True) for x in pair)]
    )


def _over(front: Float[np.ndarray, " N"], back: Float[np.ndarray, " M"]) -> Float[np.ndarray, " K"]:
    """Both at once: what is behind goes on for as long as what is in front, at least."""
    if len(back) < len(front):
        back = np.resize(back, len(front))
    out = back.copy()
    start = (len(back) - len(front)) // 2
    out[start : start + len(front)] += front
    return out
