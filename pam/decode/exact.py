"""Prompts and audio in passes whose shapes depend on the utterance alone.

So the result of an utterance does not depend on the others, bit for bit and in any type; see
`pam.decode.engine`, which does the same for the tokens of the answer:

- encoders, router and fusion compute one utterance at a time;
- the LLM, whose cost is the reading of its weights, always reads a fixed number of rows. Missing
  rows are filled with copies. The padded length of a row follows from its own length.
"""

# P positions in a cache, U frames after fusion, D width of the LLM, R routed experts

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pam.data.utterances import batch_of
from pam.decode.greedy import PromptMemory, listen, token_limits
from pam.decode.request import Request
from pam.llm.causal_lm import CausalLM
from pam.llm.prompts import PromptStates, stack_prompts, without_padding
from pam.model.speech_llm import ESPnetPaMModel

READ_ROWS, READ_STEP = 4, 16  # rows of a pass, and the multiple to pad to
SHORTEST_PROMPT = 64


@dataclass
class Fused:
    """The LLM's input for one request.

    Attributes:
        limit: the largest number of tokens of the answer.
        logits, gate: see `ESPnetPaMModel.route`; None without a router.
    """

    request: Request
    prompt: PromptStates
    audio: Float[Tensor, "1 U D"]
    frames: Int[Tensor, " 1"]
    limit: int
    logits: Float[Tensor, "1 R"] | None
    gate: Float[Tensor, "1 _"] | None

    @property
    def shape(self) -> tuple[int, int]:
        """Padded lengths of the prompt and of the audio."""
        return power_above(self.prompt.mask.shape[1], SHORTEST_PROMPT), padded(self.audio.shape[1])


class ExactMemory(PromptMemory):
    """States of prompts, each computed independently of the other prompts."""

    def learn(self, new: Sequence[str]) -> None:
        lengths = [padded(len(self.model.llm.prompt_ids(prompt))) for prompt in new]
        for places, length in in_groups(lengths, READ_ROWS):
            states = self.model.read_prompts([new[place] for place in places], length)
            for row, place in enumerate(dict.fromkeys(places)):
                self.keep(new[place], without_padding(states, row))


@torch.no_grad()
def fuse_exactly(
    model: ESPnetPaMModel, memory: PromptMemory, request: Request, loaded: Mapping[str, Tensor]
) -> Fused:
    """Route and fuse one request, whose features are `loaded`."""
    batch = batch_of([loaded], model.device)
    prompt = memory([request.prompt])
    with model.autocast():
        logits, gate = model.route(prompt, None)
        states, frames = model.states(batch)
        audio, length = model.fuse(states, frames, gate)
    limit = int(token_limits(frames, request.max_new_tokens, request.max_tokens_per_second))
    return Fused(request, prompt, audio, length, limit, logits, gate)


def listen_exactly(
    llm: CausalLM, inputs: Iterable[Fused], autocast: Callable = nullcontext
) -> Iterator[tuple[Fused, PromptStates]]:
    """The states of `llm` after prompt and audio; `pooled` is the state that predicts a token.

    Inputs of one shape come one after the other; at most `READ_ROWS` are read ahead.
    """
    inputs = list(inputs)
    for places, (prompt_length, length) in in_groups([one.shape for one in inputs], READ_ROWS):
        group = [inputs[place] for place in places]
        with autocast():
            past = read_group(llm, group, prompt_length, length)
        for row, place in enumerate(dict.fromkeys(places)):
            yield inputs[place], without_padding(past, row)


@torch.no_grad()
def read_group(
    llm: CausalLM, group: Sequence[Fused], prompt_length: int, length: int
) -> PromptStates:
    prompt = stack_prompts([one.prompt for one in group], prompt_length)
    audio = torch.cat([F.pad(one.audio, (0, 0, 0, length - one.audio.shape[1])) for one in group])
    hidden, mask, cache = listen(llm, prompt, audio, torch.cat([one.frames for one in group]))
    layers = cache.layers
    return PromptStates(hidden, [x.keys for x in layers], [x.values for x in layers], mask)


def in_groups(shapes: Sequence[Hashable], rows: int) -> Iterator[tuple[list[int], Any]]:
    """Yield (`rows` places of one shape, the shape); the first place is repeated as filling."""
    places = defaultdict(list)
    for place, shape in enumerate(shapes):
        places[shape].append(place)
    for shape, found in places.items():
        for start in range(0, len(found), rows):
            group = found[start : start + rows]
            yield group + group[:1] * (rows - len(group)), shape


def padded(length: int) -> int:
    """The next multiple of `READ_STEP` above `length`.

    There is always some padding: attention may use another kernel if there is none.
    """
    return (length // READ_STEP + 1) * READ_STEP


def power_above(length: int, shortest: int) -> int:
    """The next power of two above `length`, so that there is always some padding."""
    return max(shortest, 1 << length.bit_length())
