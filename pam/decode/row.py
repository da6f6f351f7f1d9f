"""An answer in the making."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pam.decode.engine import Item
from pam.llm.prompts import PromptStates


@dataclass
class Row:
    """One utterance of a search.

    Attributes:
        key: identifies the row for the caller.
        past: what the LLM has read before the answer; `pooled` predicts the first token.
        limit: the largest number of tokens.
        name: of the utterance.
        hint: what a drafter prepared for the row.
        watch: as of `Request`.
        said: the tokens so far, without the end token. The last one is not read yet.
        logprob: the sum of the log-probabilities of all chosen tokens, with the end token.
        passes: the passes of the LLM that the row took part in.
        tried: the passes with a draft.
        drafted, accepted: the number of proposed tokens, and of those that were kept.
        exits: with early exit, the layer that predicted each token after the first.
        layers: with early exit, the number of layers computed for all tokens.
        heads: with early exit, the number of predictions of checked layers.
        place: its row in the engine.
        start: the number of tokens before the answer.
    """

    key: Any
    past: PromptStates
    limit: int
    name: str = ""
    hint: Any = None
    watch: Callable[[Sequence[int]], bool] | None = None
    said: list[int] = field(default_factory=list)
    logprob: float = 0.0
    passes: int = 0
    tried: int = 0
    drafted: int = 0
    accepted: int = 0
    exits: list[int] = field(default_factory=list)
    layers: int = 0
    heads: int = 0
    place: int = -1
    start: int = 0
    ended: bool = False

    def say(self, token: int, logprob: float, end: int) -> None:
        """Append the LLM's choice; the row ends with the end token or at its limit."""
        self.logprob += logprob
        if token != end:
            self.said.append(token)
        self.ended = token == end or len(self.said) == self.limit

    def show(self) -> None:
        """Let who watches see the tokens so far; the row ends if nobody wants more."""
        if self.watch is not None and not self.watch(self.said):
            self.ended = True

    def items(self, draft: Sequence[int]) -> list[Item]:
        """The last token and the draft after it, at their slots."""
        slot = self.start + len(self.said) - 1
        tokens = [self.said[-1], *draft]
        return [Item(self.place, slot + step, token) for step, token in enumerate(tokens)]
