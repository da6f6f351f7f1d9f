"""Captions of one to three sounds, built by templates: no human-written ones exist for them.

Every arrangement has five wordings, so a clip has five references.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_REFERENCES = 5
SEQUENCE, OVERLAY = "sequence", "overlay"


@dataclass(frozen=True)
class Phrase:
    """Who makes a sound and how: ("a dog", "barks", "barking")."""

    subject: str
    verb: str
    ing: str

    @property
    def clause(self) -> str:
        return f"{self.subject} {self.verb}"

    @property
    def noun(self) -> str:
        return f"{self.subject} {self.ing}"

    @property
    def progressive(self) -> str:
        return f"{self.subject} {'is' if self._is_singular else 'are'} {self.ing}"

    @property
    def _is_singular(self) -> bool:
        return self.verb.split()[0].endswith("s")


def captions(phrases: Sequence[Phrase], arrangement: str) -> list[str]:
    """The five wordings for one sound, for two or three in sequence, or for one over another.

    In an overlay the first sound is in front, the second behind it.
    """
    if len(phrases) == 1:
        return _single(*phrases)
    if arrangement == OVERLAY:
        return _overlay(*phrases)
    return _two(*phrases) if len(phrases) == 2 else _three(*phrases)


def shuffled_captions(
    phrases: Sequence[Phrase], arrangement: str, rng: np.random.Generator
) -> list[str]:
    wordings = captions(phrases, arrangement)
    return [wordings[i] for i in rng.permutation(len(wordings))]


def _single(a: Phrase) -> list[str]:
    return [
        a.clause,
        a.progressive,
        f"the sound of {a.noun}",
        f"{a.noun} can be heard",
        f"you can hear {a.noun}",
    ]


def _two(a: Phrase, b: Phrase) -> list[str]:
    return [
        f"{a.clause}, then {b.clause}",
        f"{a.noun} followed by {b.noun}",
        f"first {a.clause}, then {b.clause}",
        f"{a.progressive}, and then {b.clause}",
        f"{a.clause}, and after that {b.clause}",
    ]


def _three(a: Phrase, b: Phrase, c: Phrase) -> list[str]:
    return [
        f"{a.clause}, then {b.clause}, and then {c.clause}",
        f"{a.noun} followed by {b.noun} and {c.noun}",
        f"first {a.clause}, then {b.clause}, and finally {c.clause}",
        f"{a.clause}, {b.clause}, and after that {c.clause}",
        f"{a.noun}, then {b.noun}, then {c.noun}",
    ]


def _overlay(front: Phrase, back: Phrase) -> list[str]:
    return [
        f"{front.clause} while {back.progressive}",
        f"{front.noun} with {back.noun} in the background",
        f"{front.clause} and {back.clause} at the same time",
        f"{front.progressive} as {back.clause}",
        f"{front.noun} and {back.noun} together",
    ]
