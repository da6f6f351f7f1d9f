"""Batched greedy search whose answers equal those of single utterances, bit for bit, in any type.

A library chooses its kernel, and so the order of its sums, by the shapes of its operands. In a
plain batch these shapes depend on the number and the lengths of the other rows. In bfloat16 that
can change the choice between two tokens of almost equal probability, and then the rest of the
answer.

Here every shape depends on the utterance alone:

- encoders, router and fusion compute one utterance at a time;
- the LLM, whose cost is the reading of its weights, always computes a fixed number of rows. Missing
  rows are filled with copies. The padded length of a row follows from its own length;
- a pass over one token per row has only rows at the same step.

With fixed shapes, the result of a row does not depend on the other rows. When rows end, the
remaining ones are moved into fewer groups.
"""

# P positions in a cache, U frames after fusion, D width of the LLM

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from pam.decode.greedy import (
    GreedyOutput,
    PromptMemory,
    listen,
    output_of,
    stack_prompts,
    token_limits,
    without_padding,
)
from pam.llm.causal_lm import CausalLM
from pam.llm.prompts import PromptStates
from pam.model.speech_llm import ESPnetPaMModel

READ_ROWS, READ_STEP = 4, 16  # passes over prompts or audio: rows, and the multiple to pad to
ROWS = 8  # passes over one token per row: rows
SHORTEST_PROMPT, SHORTEST_CACHE = 64, 128

Clip = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]  # features and lengths of one row


@dataclass
class Fused:
    """The LLM's input for one row; `limit`: the largest number of tokens of its answer."""

    prompt: PromptStates
    audio: Float[Tensor, "1 U D"]
    frames: Int[Tensor, " 1"]
    limit: int

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
                self.known[new[place]] = without_padding(states, row)


@torch.no_grad()
def greedy_exact(
    model: ESPnetPaMModel,
    clips: Iterable[Clip],
    prompts: Sequence[str],
    max_new_tokens: int = 100,
    memory: ExactMemory | None = None,
    max_tokens_per_second: float = 0.0,
) -> GreedyOutput:
    """As `pam.decode.greedy.greedy`, for `clips` of one row each."""
    memory = memory or ExactMemory(model)
    memory(prompts)  # computes all new prompts together
    rows, routed = [], []
    with model.autocast():
        for (features, lengths), prompt in zip(clips, prompts, strict=True):
            batch = {**features, **{f"{name}_lengths": n for name, n in lengths.items()}}
            batch = {name: value.to(model.device) for name, value in batch.items()}
            read = memory([prompt])
            logits, gate = model.route(read, None)
            states, frames = model.states(batch)
            limit = int(token_limits(frames, max_new_tokens, max_tokens_per_second))
            rows.append(Fused(read, *model.fuse(states, frames, gate), limit))
            routed.append((logits, gate))
        tokens = exact_search(model.llm, listen_exactly(model, rows), [row.limit for row in rows])
    if routed[0][0] is None:
        return output_of(model, tokens, None, None)
    logits, gates = zip(*routed, strict=True)
    return output_of(model, tokens, torch.cat(logits), torch.cat(gates))


def listen_exactly(model: ESPnetPaMModel, rows: Sequence[Fused]) -> list[PromptStates]:
    """The LLM's states of each row after prompt and audio."""
    pasts: dict[int, PromptStates] = {}
    for places, (prompt_length, length) in in_groups([row.shape for row in rows], READ_ROWS):
        group = [rows[place] for place in places]
        prompt = stack_prompts([row.prompt for row in group], prompt_length)
        audio = [F.pad(row.audio, (0, 0, 0, length - row.audio.shape[1])) for row in group]
        frames = torch.cat([row.frames for row in group])
        past = past_of(*listen(model, prompt, torch.cat(audio), frames))
        for row, place in enumerate(dict.fromkeys(places)):
            pasts[place] = without_padding(past, row)
    return [pasts[place] for place in range(len(rows))]


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


def past_of(
    hidden: Float[Tensor, "B D"], mask: Bool[Tensor, "B P"], cache: DynamicCache
) -> PromptStates:
    """The LLM's states as `PromptStates`; `pooled` is the state that predicts the next token."""
    layers = cache.layers
    return PromptStates(hidden, [x.keys for x in layers], [x.values for x in layers], mask)


def exact_search(
    llm: CausalLM, pasts: Sequence[PromptStates], limits: Sequence[int]
) -> list[list[int]]:
    """Greedy tokens after each of `pasts` (one row each), to the end token or the row's limit."""
    said: list[list[int]] = [[] for _ in pasts]
    same_length = defaultdict(list)
    for place, past in enumerate(pasts):
        if limits[place] > 0:
            same_length[power_above(past.mask.shape[1], SHORTEST_CACHE)].append(place)
    for length, places in same_length.items():
        past = stack_prompts([pasts[place] for place in places], length)
        groups = make_groups(llm, places, past)
        while groups:
            for group in groups:
                group.say(said, limits)
            groups = close_ranks(llm, groups)
            for group in groups:
                group.read()
    return said


class Group:
    """`ROWS` rows at the same step: those of `places`, then copies of the first to fill the shape.

    `token` holds the last token of each row.
    """

    def __init__(
        self,
        llm: CausalLM,
        places: Sequence[int],
        past: PromptStates,
        token: Int[Tensor, " B"] | None = None,
    ):
        self.llm, self.places = llm, dict(enumerate(places))  # row → place
        fill = [0] * (ROWS - len(places))
        rows = torch.tensor([*self.places, *fill], device=past.mask.device)
        past = past.select(rows)
        self.hidden, self.mask, self.cache = past.pooled, past.mask, past.cache()
        self.token = None if token is None else token[rows]

    def say(self, said: list[list[int]], limits: Sequence[int]) -> None:
        """Append the next token of each row to its tokens in `said`; drop the rows that end."""
        self.token = self.llm.logits(self.hidden).argmax(-1)
        tokens = self.token.tolist()
        for row, place in list(self.places.items()):
            if tokens[row] != self.llm.eos:
                said[place].append(tokens[row])
            if tokens[row] == self.llm.eos or len(said[place]) == limits[place]:
                del self.places[row]

    def read(self) -> None:
        position = self.mask.sum(1, keepdim=True)
        self.mask = torch.cat([self.mask, self.mask.new_ones(ROWS, 1)], dim=1)
        embeds = self.llm.embed(self.token)[:, None]
        self.hidden = self.llm.read(embeds, self.mask, position, self.cache)[:, 0]

    def left(self) -> tuple[PromptStates, Int[Tensor, " B"]]:
        """The states and the last tokens of the rows that have not ended."""
        rows = torch.tensor(list(self.places), device=self.mask.device)
        return past_of(self.hidden, self.mask, self.cache).select(rows), self.token[rows]


def make_groups(
    llm: CausalLM, places: Sequence[int], past: PromptStates, token: Int[Tensor, " B"] | None = None
) -> list[Group]:
    groups = []
    for start in range(0, len(places), ROWS):
        rows = torch.arange(start, min(start + ROWS, len(places)), device=past.mask.device)
        said = None if token is None else token[rows]
        groups.append(Group(llm, places[start : start + ROWS], past.select(rows), said))
    return groups


def close_ranks(llm: CausalLM, groups: list[Group]) -> list[Group]:
    """The rows that have not ended, in as few groups as possible."""
    places = [place for group in groups for place in group.places.values()]
    if -(-len(places) // ROWS) == len(groups):
        return groups
    if not places:
        return []
    pasts, tokens = zip(*(group.left() for group in groups if group.places), strict=True)
    return make_groups(llm, places, stack_prompts(pasts), torch.cat(tokens))
