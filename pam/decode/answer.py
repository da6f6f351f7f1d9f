"""What a program gets for a prompt about one recording."""

# M fused features of an expert, S_e hidden states of encoder e

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

LayerWeights = Mapping[str, Float[np.ndarray, "M S_e"]]


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
        tokens: the number of tokens of the answer; of all pieces together.
        complete: whether the model ended the answer (all pieces), not a limit of tokens.
        seconds: the length of the recording.
        wall_seconds: how long the call took that answered; answers of one call share it.
        layer_weights: W of equation 5 of the expert, for each encoder; {} without such an expert.
            Answers are compared without the last three.
    """

    text: str
    expert: str | None
    posteriors: dict[str, float]
    no_speech: float = 0.0
    repetition: float = 0.0
    skipped: bool = False
    pieces: tuple[Piece, ...] = ()
    tokens: int = 0
    complete: bool = True
    seconds: float = field(default=0.0, compare=False)
    wall_seconds: float = field(default=0.0, compare=False)
    layer_weights: LayerWeights = field(default_factory=dict, compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """What can be written as JSON: everything but the layer weights."""
        found = {k: v for k, v in vars(self).items() if k != "layer_weights"}
        return found | {"pieces": [piece._asdict() for piece in self.pieces]}
