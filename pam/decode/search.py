"""Search over many rows: rows that end give their place to the next ones.

A strategy chooses the tokens. `Greedy` is here, with or without drafts. `pam.decode.exits` and
`pam.decode.sample` have the others; `pam.decode.beam` is a search of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from pam.decode.drafters.base import Drafter
from pam.decode.engine import Engine
from pam.decode.row import Row

# A pass with drafts copies keys and values, which shorter drafts do not make up for.
SHORTEST_DRAFT = 3  # tokens that must have a place
TRIAL, LEAST_GAIN = 3, 0.25  # passes with a draft, and accepted tokens of such a pass
Choice = tuple[int, float]  # a token and its log-probability


class Strategy(ABC):
    """How rows get their tokens."""

    def first(self, engine: Engine, rows: Sequence[Row], hidden: Float[Tensor, "n D"]) -> None:
        """Give each new row its first token, which `hidden` predicts."""
        for row, choice in zip(
            rows, choose(engine, hidden, [row.said for row in rows]), strict=True
        ):
            row.say(*choice, engine.lm.eos)

    @abstractmethod
    def advance(self, engine: Engine, rows: Sequence[Row]) -> None:
        """Give each row its next tokens, at least one."""


@torch.no_grad()
def search(engine: Engine, rows: Iterable[Row], strategy: Strategy) -> Iterator[Row]:
    """Yield the rows as they end. A row is made when there is a place for it."""
    waiting, active = iter(rows), []
    while True:
        new = list(islice(waiting, len(engine.free)))
        if new:
            hidden = admit(engine, new)
            strategy.first(engine, new, hidden)
            active += new
        elif not active:
            return
        if going := [row for row in active if not row.ended]:
            strategy.advance(engine, going)
        for row in active:
            row.show()
            if row.ended:
                engine.release(row.place)
                yield row
        active = [row for row in active if not row.ended]


def admit(engine: Engine, rows: Sequence[Row]) -> Float[Tensor, "n D"]:
    """Give each row a place; the states that predict their first tokens."""
    hidden = torch.cat([row.past.pooled for row in rows])
    for row in rows:
        row.start, row.place = row.past.mask.shape[1], engine.admit(row.past)
        row.past = None  # the engine has it
    return hidden


class Greedy(Strategy):
    """The most probable token, lossless with any drafter.

    A drafter proposes next tokens of a row. One pass of the LLM reads them all. Of a draft, those
    tokens are kept that the LLM would have chosen itself, and then comes the LLM's own choice. So
    the answer is the same whatever is proposed, and a good draft saves passes. Drafts only use
    places of a pass that would otherwise be empty. Keys of rejected tokens are not removed: later
    tokens overwrite their slots. A row whose drafts are of little use gets no more.
    """

    def __init__(self, drafter: Drafter | None = None):
        self.drafter = drafter

    def advance(self, engine: Engine, rows: Sequence[Row]) -> None:
        drafts = self.drafts(engine, rows)
        items = [row.items(draft) for row, draft in zip(rows, drafts, strict=True)]
        hidden = engine.read([item for group in items for item in group])
        said = [
            [*row.said, *draft[:kept]]
            for row, draft in zip(rows, drafts, strict=True)
            for kept in range(len(draft) + 1)
        ]
        choices = iter(choose(engine, hidden, said))
        for row, draft in zip(rows, drafts, strict=True):
            accept(row, draft, list(islice(choices, len(draft) + 1)), engine.lm.eos)

    def drafts(self, engine: Engine, rows: Sequence[Row]) -> list[list[int]]:
        most = engine.items // len(rows) - 1
        drafts: list[list[int]] = [[] for _ in rows]
        if self.drafter is None or most < SHORTEST_DRAFT:
            return drafts
        places = [place for place, row in enumerate(rows) if gains(row)]
        if places:
            proposed = self.drafter.propose(engine, [rows[place] for place in places], most)
            for place, draft in zip(places, proposed, strict=True):
                drafts[place] = draft[: rows[place].limit - len(rows[place].said) - 1]
        return drafts


def gains(row: Row) -> bool:
    """Whether drafts bring the row enough tokens, or it is too early to say."""
    return row.tried < TRIAL or row.accepted >= LEAST_GAIN * row.tried


def accept(row: Row, draft: Sequence[int], choices: Sequence[Choice], end: int) -> None:
    """Keep the LLM's choices up to the first that differs from the draft, which it replaces."""
    row.passes += 1
    row.tried += bool(draft)
    row.drafted += len(draft)
    for place, (token, logprob) in enumerate(choices):
        row.say(token, logprob, end)
        if row.ended or draft[place : place + 1] != [token]:
            return
        row.accepted += 1


def choose(
    engine: Engine, hidden: Float[Tensor, "n D"], said: Sequence[Sequence[int]]
) -> list[Choice]:
    """The most probable token that may follow `said` after each state, and its log-probability."""
    logits = engine.logits(hidden)
    best = engine.allowed(logits, said).max(-1)
    logprobs = best.values - logits.logsumexp(-1)
    return list(zip(best.indices.tolist(), logprobs.tolist(), strict=True))
