"""What decoding is asked, and what it answers."""

# T frames, N samples, R routed experts

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from pam.decode.settings import MAX_NEW_TOKENS, MAX_TOKENS_PER_SECOND


@dataclass(frozen=True)
class Request:
    """A prompt about a clip.

    Attributes:
        key: identifies the request for the caller.
        name: of the utterance; sampling draws by it.
        load: reads what the model hears: audio or states, as in `pam.data.utterances.Inputs`.
        max_new_tokens: an answer has at most so many tokens.
        max_tokens_per_second: and at most so many per second of audio, but the limit is never below
            16. It ends answers that repeat themselves. 0: no such limit.
        watch: called with the tokens so far after every pass; the answer ends where it returns
            False. Only searches that never take a token back call it.
    """

    key: Any
    prompt: str
    load: Callable[[], Mapping[str, Tensor]]
    max_new_tokens: int = MAX_NEW_TOKENS
    max_tokens_per_second: float = MAX_TOKENS_PER_SECOND
    name: str = ""
    watch: Callable[[Sequence[int]], bool] | None = None

    @property
    def limits(self) -> tuple[int, float]:
        """Of tokens, and of tokens per second."""
        return self.max_new_tokens, self.max_tokens_per_second


@dataclass(frozen=True)
class Answered:
    """The answer to a request.

    Attributes:
        tokens: without the end token.
        expert: the index of the chosen expert; None without a router.
        posterior: p of equation 8; None without a router.
        logprob: the log-probability of the tokens, in nats, with the end token if there is one.
        passes: the passes of the LLM that the answer took part in.
        complete: whether the LLM ended the answer, not its limit.
        exits: with early exit, the layer that predicted each token after the first.
        layers: with early exit, the number of layers computed for all its tokens.
    """

    key: Any
    text: str
    tokens: list[int]
    expert: int | None
    posterior: Float[Tensor, " R"] | None
    logprob: float
    passes: int
    complete: bool = True
    exits: list[int] = field(default_factory=list)
    layers: int = 0
