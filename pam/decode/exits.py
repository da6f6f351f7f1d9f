"""Early exit: a token is predicted from the first layer that is sure of it (arXiv 2412.01455).

The search is lossy: answers differ from those of all layers. After an exit, the upper layers have
no keys and values of the token, which later tokens attend to. There are three remedies:

- "copy": those of the exit layer;
- "propagate": the upper layers' projections of the exit layer's state;
- "recompute": the token waits, and its layers are computed with the next token that passes them. So
  keys and values are those of the whole LLM, and only the predictions are early.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from pam.decode.chunks import in_chunks
from pam.decode.engine import Engine, Item
from pam.decode.row import Row
from pam.decode.search import Strategy
from pam.errors import PamError
from pam.llm.causal_lm import CausalLM
from pam.llm.criteria import CRITERIA, Check
from pam.llm.depth import Depth
from pam.model.exits import ExitGate
from pam.registry import nearest

STATIC = "static"  # always exit at the first checked layer
CACHES = ("copy", "propagate", "recompute")
COUNTS = ("patience",)  # criteria whose score is a number of layers


@dataclass(frozen=True)
class Exits:
    """When to exit.

    Attributes:
        criterion: a name of `CRITERIA`, or "static".
        threshold: exit where the criterion's score reaches it.
        first, stride: the checked layers are first, first + stride, ...; the last always predicts.
        decay: how fast the threshold falls along the answer (`threshold_at`).
        cache: the remedy for keys and values of skipped layers.
    """

    criterion: str
    threshold: float = 0.9
    first: int = 1
    stride: int = 1
    decay: float = 0.0
    cache: str = "recompute"

    def check(self, layers: int, gate: ExitGate | None) -> None:
        """`PamError` for a value that an LLM with so many layers and this gate cannot use."""
        names = {STATIC, *CRITERIA}
        if self.criterion not in names:
            raise PamError(f"early_exit {self.criterion!r}: {nearest(self.criterion, names)}")
        if self.cache not in CACHES:
            raise PamError(f"exit_cache {self.cache!r}: {nearest(self.cache, CACHES)}")
        low, high = (1, layers) if self.criterion in COUNTS else (0, 1)
        if not low <= self.threshold <= high:
            raise PamError(
                f"threshold {self.threshold:g}: must be {low} to {high} for {self.criterion}"
            )
        if not 1 <= self.first <= layers:
            raise PamError(f"exit_layer {self.first}: must be 1 to {layers}, the last layer")
        if self.stride < 1:
            raise PamError(f"exit_stride {self.stride}: must be at least 1")
        if self.decay < 0:
            raise PamError(f"exit_decay {self.decay:g}: must be 0 or more")
        if self.criterion == "gate":
            self.check_gate(layers, gate)

    def check_gate(self, layers: int, gate: ExitGate | None) -> None:
        if gate is None:
            raise PamError(
                "early_exit gate: this experiment has no trained gate: train one with "
                "model_conf.exits.gate"
            )
        if missing := set(self.stops(layers)) - {*gate.layers, layers}:
            raise PamError(
                f"early_exit gate: layer {min(missing)} has no gate: choose exit_layer and "
                f"exit_stride so that all checked layers are among {gate.layers}"
            )

    def threshold_at(self, step: int, limit: int) -> float:
        """The threshold after `step` tokens of at most `limit` (CALM, arXiv 2207.07061, eq. 5).

        It falls to 0.9 of itself along the answer, since an early mistake harms more tokens.
        """
        if self.decay == 0:
            return self.threshold
        return min(1.0, 0.9 * self.threshold + 0.1 * math.exp(-self.decay * step / limit))

    def stops(self, layers: int) -> list[int]:
        """The layers after which the computation may stop; the last of them is the last layer."""
        if self.criterion == STATIC:
            return sorted({self.first, layers})
        return sorted({*range(self.first, layers, self.stride), layers})


@dataclass
class Token:
    """A token on its way through the layers: where to read it, its state after `depth` layers."""

    item: Item
    hidden: Float[Tensor, " D"] | None = None
    depth: int = 0


@dataclass
class Way:
    """A row's current token.

    Attributes:
        behind: earlier tokens that have exited and wait for their upper layers ("recompute").
        before: the state at the layer checked before.
        predicted: by the layers checked so far.
    """

    row: Row
    token: Token
    behind: list[Token]
    before: Float[Tensor, " D"] | None = None
    predicted: list[int] = field(default_factory=list)


class EarlyExit(Strategy):
    """Chooses tokens with early exit. `gate` is for the criterion "gate"."""

    def __init__(self, lm: CausalLM, exits: Exits, gate: ExitGate | None = None):
        self.lm, self.exits, self.gate = lm, exits, gate
        self.depth = Depth(lm, sublayers=exits.cache == "propagate")
        exits.check(len(self.depth), gate)
        self.stops = exits.stops(len(self.depth))
        self.behind: dict[int, list[Token]] = {}  # of each place of the engine

    def advance(self, engine: Engine, rows: Sequence[Row]) -> None:
        """Give each row its next token."""
        ways = []
        for row in rows:
            if not row.exits:  # the row is new at its place
                self.behind[row.place] = []
            ways.append(Way(row, Token(*row.items([])), self.behind[row.place]))
        for row in rows:
            row.passes += 1
        for first, last in pairwise([0, *self.stops]):
            self.compute(engine, ways, first, last)
            ways = self.leave(engine, ways, last)
            if not ways:
                break

    def compute(self, engine: Engine, ways: Sequence[Way], first: int, last: int) -> None:
        """Take the tokens that are at layer `first` to layer `last`.

        Waiting tokens of a row go along, so that the current one finds their keys and values.
        """
        tokens = []
        for way in ways:
            own = [token for token in (*way.behind, way.token) if token.depth == first]
            way.row.layers += len(own) * (last - first)
            way.before = way.token.hidden
            tokens += own
        for some in in_chunks(tokens, engine.items):
            hidden = torch.stack([token.hidden for token in some]) if first else None
            items = [token.item for token in some]
            states = engine.read_part(self.depth, items, hidden, first, last)
            for token, state in zip(some, states, strict=True):
                token.hidden, token.depth = state, last

    def leave(self, engine: Engine, ways: Sequence[Way], layer: int) -> list[Way]:
        """Predict from `layer`; the ways that go on."""
        hidden = torch.stack([way.token.hidden for way in ways])
        logits = engine.logits(self.depth.norm(hidden))
        allowed = engine.allowed(logits, [way.row.said for way in ways])
        best = allowed.max(-1)
        logprobs = (best.values - logits.logsumexp(-1)).tolist()
        for way, token in zip(ways, best.indices.tolist(), strict=True):
            way.row.heads += 1
            way.predicted.append(token)
        exits = self.sure(ways, allowed, hidden, layer)
        for way, logprob, leaves in zip(ways, logprobs, exits, strict=True):
            if leaves:
                way.row.exits.append(layer)
                way.row.say(way.predicted[-1], logprob, self.lm.eos)
        leaving = [way for way, leaves in zip(ways, exits, strict=True) if leaves]
        self.fill_cache(engine, leaving, layer)
        return [way for way, leaves in zip(ways, exits, strict=True) if not leaves]

    def sure(
        self,
        ways: Sequence[Way],
        logits: Float[Tensor, "N V"],
        hidden: Float[Tensor, "N D"],
        layer: int,
    ) -> list[bool]:
        """Which ways exit at `layer`."""
        if layer == len(self.depth) or self.exits.criterion == STATIC:
            return [True] * len(ways)
        check = Check(
            logits,
            hidden,
            torch.stack([way.before for way in ways]) if ways[0].before is not None else None,
            list(torch.tensor([way.predicted for way in ways], device=logits.device).T),
            self.gate_at(hidden, layer),
        )
        scores = CRITERIA[self.exits.criterion](check).tolist()
        rows = [way.row for way in ways]
        return [
            score >= self.exits.threshold_at(len(row.said), row.limit)
            for row, score in zip(rows, scores, strict=True)
        ]

    def gate_at(self, hidden: Float[Tensor, "N D"], layer: int) -> Float[Tensor, " N"] | None:
        if self.exits.criterion != "gate":
            return None
        return self.gate(self.depth.norm(hidden), layer).sigmoid()

    def fill_cache(self, engine: Engine, ways: Sequence[Way], layer: int) -> None:
        """The remedy for keys and values above `layer` of the tokens that exit there."""
        layers = len(self.depth)
        if layer == layers:
            for way in ways:
                way.behind.clear()
        elif self.exits.cache == "recompute":
            for way in ways:
                way.behind.append(way.token)
        elif ways:
            items = [way.token.item for way in ways]
            if self.exits.cache == "copy":
                engine.cache.copy(items, layer - 1, range(layer, layers))
            else:
                hidden = torch.stack([way.token.hidden for way in ways])
                engine.read_part(self.depth, items, hidden, layer, layers, self.depth.propagate)
