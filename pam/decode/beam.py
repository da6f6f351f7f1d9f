"""Beam search: the answer whose log-probability per token is the highest that is found.

The score of an answer with n tokens, the end token included, is log p / n, as in transformers with
`length_penalty` 1. The beams of an utterance are rows of the engine.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from pam.decode.engine import Engine, Item
from pam.decode.row import Row


@dataclass
class Beam:
    """A beginning of an answer, its log-probability, and its place in the engine."""

    said: list[int]
    logprob: float
    place: int


@dataclass
class Hypotheses:
    """The beams of a row, and the answers that have ended: (score, log-probability, tokens)."""

    row: Row
    places: list[int]
    beams: list[Beam] = field(default_factory=list)
    ended: list[tuple[float, float, list[int]]] = field(default_factory=list)

    def end(self, said: list[int], logprob: float, length: int) -> None:
        """Keep an answer if it is among the best."""
        self.ended.append((logprob / length, logprob, said))
        self.ended.sort(key=lambda one: -one[0])
        del self.ended[len(self.places) :]

    def is_done(self) -> bool:
        """Whether no beam can become better than the answers that are kept."""
        if not self.beams or len(self.beams[0].said) == self.row.limit:
            return True
        length = len(self.beams[0].said)
        return (
            len(self.ended) == len(self.places)
            and self.beams[0].logprob / length <= self.ended[-1][0]
        )

    def best(self) -> Row:
        """The row with the best answer; a beam at the limit counts as one."""
        for beam in self.beams:
            if len(beam.said) == self.row.limit:
                self.end(beam.said, beam.logprob, len(beam.said))
        _, self.row.logprob, self.row.said = self.ended[0]
        return self.row


@torch.no_grad()
def beam_search(engine: Engine, rows: Iterable[Row], beams: int) -> Iterator[Row]:
    """Yield the rows as they end."""
    waiting, active = iter(rows), []
    while True:
        new = list(islice(waiting, len(engine.free) // beams))
        for row in new:
            row.start = row.past.mask.shape[1]
            own = Hypotheses(row, [engine.admit(row.past) for _ in range(beams)])
            extend(engine, own, [Beam([], 0.0, own.places[0])], engine.logits(row.past.pooled))
            row.past = None
            active.append(own)
        if not active:
            return
        if going := [own for own in active if not own.is_done()]:
            advance(engine, going)
        for own in active:
            if own.is_done():
                for place in own.places:
                    engine.release(place)
                yield own.best()
        active = [own for own in active if not own.is_done()]


def advance(engine: Engine, active: Sequence[Hypotheses]) -> None:
    """Read the last token of every beam, and choose the next beams of every row."""
    beams = [(own.row, beam) for own in active for beam in own.beams]
    slots = [row.start + len(beam.said) - 1 for row, beam in beams]
    items = [
        Item(beam.place, slot, beam.said[-1]) for (_, beam), slot in zip(beams, slots, strict=True)
    ]
    logits = iter(engine.logits(engine.read(items)).split([len(own.beams) for own in active]))
    for own in active:
        own.row.passes += 1
        extend(engine, own, own.beams, next(logits))


def extend(
    engine: Engine, own: Hypotheses, beams: Sequence[Beam], logits: Float[Tensor, "n V"]
) -> None:
    """Replace the beams by the best continuations; those with the end token are answers."""
    count = len(own.places)
    before = torch.tensor([beam.logprob for beam in beams], device=logits.device)
    logprobs = engine.allowed(logits.log_softmax(-1), [beam.said for beam in beams])
    totals = (logprobs + before[:, None]).flatten()
    best = totals.topk(min(2 * count, len(totals)))
    found: list[tuple[Beam, int, float]] = []
    candidates = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    for rank, (logprob, index) in enumerate(candidates):
        beam, token = beams[index // logits.shape[1]], index % logits.shape[1]
        if token != engine.lm.eos:
            found.append((beam, token, logprob))
        elif rank < count:
            own.end(beam.said, logprob, len(beam.said) + 1)
    found = found[:count]
    engine.cache.move([beam.place for beam, _, _ in found], own.places[: len(found)])
    own.beams = [
        Beam([*beam.said, token], logprob, place)
        for (beam, token, logprob), place in zip(found, own.places, strict=False)
    ]
