"""What a program gets for a prompt about one recording."""

from dataclasses import dataclass
from typing import NamedTuple


class Piece(NamedTuple):
    """The answer about a part of a recording, from `start` to `end` in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Answer:
    """The model's answer, and the expert that the router chose.

    Attributes:
        expert: a task's name, or a number if experts have no tasks; None without a router.
        posteriors: the probability of every expert; {} without a router.
        no_speech, repetition: scores from 0 to 1 (`pam.decode.checks`).
        skipped: whether the text is empty because of `no_speech`; of a recording that was cut,
            whether all pieces were skipped.
        pieces: of a recording that was cut, the answers about its pieces; else ().
    """

    text: str
    expert: str | None
    posteriors: dict[str, float]
    no_speech: float = 0.0
    repetition: float = 0.0
    skipped: bool = False
    pieces: tuple[Piece, ...] = ()
