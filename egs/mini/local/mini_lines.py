"""Utterances made of lines of the game: one line, or several of one character with pauses between.

A line of the game is seldom longer than 8 s. Joined lines teach and test longer audio.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from mini_mix import gain, silence
from mini_speech import Speech, voice_audio

JOINED_SHARE = 0.25  # of the training utterances
JOINED_LINES = (2, 5)
PAUSE_SECONDS = (0.1, 0.6)
LONG_SECONDS = (8.0, 20.0)  # of an utterance of the long test

SPEEDS = (0.95, 1.05)
GAIN_DB = (-6.0, 6.0)


@dataclass(frozen=True)
class Utterance:
    """What is rendered: voices in order, the pause before each but the first, speed and level."""

    character: str
    person: str
    text: str
    voices: tuple[str, ...]
    pauses: tuple[float, ...] = ()
    speed: float = 1.0
    gain_db: float = 0.0

    def id(self, kind: str = "") -> str:
        """Starts with the character, because the speaker of an utterance must; its first voice."""
        parts = [self.character, kind, "joined" if self.pauses else "", self.voices[0]]
        return "-".join(part for part in parts if part)


def single(line: Speech) -> Utterance:
    return _utterance([line], [])


def training_utterances(
    lines: Sequence[Speech], longest: float, perturb: bool, rng: np.random.Generator
) -> list[Utterance]:
    """Every line once: a quarter of the utterances joins two to five lines, the rest is one line.

    `perturb` draws a speed and a level for each utterance. It stays the voice of its character.
    """
    utterances = []
    for rest in _shuffled_by_character(lines, rng):
        while rest:
            joins = rng.random() < JOINED_SHARE
            wanted = int(rng.integers(JOINED_LINES[0], JOINED_LINES[1] + 1)) if joins else 1
            speed = round(float(rng.uniform(*SPEEDS)), 3) if perturb else 1.0
            level = round(float(rng.uniform(*GAIN_DB)), 2) if perturb else 0.0
            if rest[-1].seconds / speed > longest:
                speed = 1.0
            lines_pauses = _take(rest, wanted, longest, longest, speed, rng)
            utterances.append(_utterance(*lines_pauses, speed, level))
    return sorted(utterances, key=Utterance.id)


def long_utterances(lines: Sequence[Speech], rng: np.random.Generator) -> list[Utterance]:
    """Lines of a character joined to 8–20 s, each line once; what is left over is not used."""
    utterances = []
    for rest in _shuffled_by_character(lines, rng):
        while rest:
            enough = float(rng.uniform(*LONG_SECONDS))
            taken, pauses = _take(rest, len(rest), enough, LONG_SECONDS[1], 1.0, rng)
            seconds = sum(line.seconds for line in taken) + sum(pauses)
            if pauses and seconds >= LONG_SECONDS[0]:
                utterances.append(_utterance(taken, pauses))
    return sorted(utterances, key=Utterance.id)


def _shuffled_by_character(
    lines: Sequence[Speech], rng: np.random.Generator
) -> Iterator[list[Speech]]:
    for character in sorted({line.character for line in lines}):
        own = [line for line in lines if line.character == character]
        yield [own[i] for i in rng.permutation(len(own))]


def _take(
    rest: list[Speech],
    wanted: int,
    enough: float,
    longest: float,
    speed: float,
    rng: np.random.Generator,
) -> tuple[list[Speech], list[float]]:
    """Lines off the end of `rest` and the pauses between them: `wanted`, or `enough` seconds."""
    taken, pauses = [rest.pop()], []
    seconds = taken[0].seconds / speed
    while rest and len(taken) < wanted and seconds < enough:
        pause = round(float(rng.uniform(*PAUSE_SECONDS)), 3)
        seconds += pause + rest[-1].seconds / speed
        if seconds > longest:
            break
        pauses.append(pause)
        taken.append(rest.pop())
    return taken, pauses


def _utterance(
    lines: Sequence[Speech], pauses: Sequence[float], speed: float = 1.0, gain_db: float = 0.0
) -> Utterance:
    return Utterance(
        character=lines[0].character,
        person=lines[0].person,
        text=" ".join(line.text for line in lines),
        voices=tuple(line.voice for line in lines),
        pauses=tuple(pauses),
        speed=speed,
        gain_db=gain_db,
    )


def utterance_audio(utterance: Utterance) -> Float[np.ndarray, " N"]:
    """At its speed, not yet at its level."""
    pieces = [voice_audio(utterance.voices[0], utterance.speed)]
    for pause, voice in zip(utterance.pauses, utterance.voices[1:], strict=True):
        pieces += [silence(pause), voice_audio(voice, utterance.speed)]
    return np.concatenate(pieces)


def render_utterance(utterance: Utterance) -> Float[np.ndarray, " N"]:
    return utterance_audio(utterance) * gain(utterance.gain_db)
