"""Greedy search in batches that give what single utterances give, bit for bit, in any type.

A library chooses its kernel, hence the order of its sums, by the shapes of its operands. In a plain
batch these depend on how many the neighbours are and how long. In bfloat16 that is enough for
another one of two tokens that are almost equally probable, and from there on the answers differ.

Here every shape depends on the utterance alone. Its prompt, its encoders, its fusion and the LLM's
pass over it are computed without neighbours. Only the steps of one token each are batched, for
their cost is to read the LLM's weights: always `ROWS` rows, which are at the same step and whose
caches are padded to a length that follows from the utterance's own. Within one shape the result of
a row does not depend on the other rows. Where rows have ended, those that go on
close ranks.
"""

# P positions in a cache, D width of the LLM, R routed experts

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
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
)
from pam.llm.causal_lm import CausalLM
from pam.llm.prompts import PromptStates
from pam.model.speech_llm import ESPnetPaMModel

EXACT = False  # the default: see tools/bench_decode.py
ROWS = 8
SHORTEST_CACHE = 128

Clip = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]  # features and lengths of one row


@torch.no_grad()
def greedy_exact(
    model: ESPnetPaMModel,
    clips: Iterable[Clip],
    prompts: Sequence[str],
    max_new_tokens: int = 100,
    memory: PromptMemory | None = None,
    max_tokens_per_second: float = 0.0,
) -> GreedyOutput:
    """`pam.decode.greedy.greedy` for `clips` of one row each; `memory` must have rows=1."""
    memory = memory or PromptMemory(model, rows=1)
    pasts, limits, routed = [], [], []
    with model.autocast():
        for (features, lengths), prompt in zip(clips, prompts, strict=True):
            batch = {**features, **{f"{name}_lengths": n for name, n in lengths.items()}}
            batch = {name: value.to(model.device) for name, value in batch.items()}
            read = memory([prompt])
            logits, gate = model.route(read, None)
            states, frames, pooling = model.states(batch)
            limits += token_limits(frames, max_new_tokens, max_tokens_per_second).tolist()
            hidden, mask, cache = listen(model, read, *model.hear(states, frames, pooling, gate))
            pasts.append(past_of(hidden, mask, cache))
            routed.append((logits, gate))
        tokens = exact_search(model.llm, pasts, limits)
    if routed[0][0] is None:
        return output_of(model, tokens, None, None)
    logits, gates = zip(*routed, strict=True)
    return output_of(model, tokens, torch.cat(logits), torch.cat(gates))


def past_of(
    hidden: Float[Tensor, "B D"], mask: Bool[Tensor, "B P"], cache: DynamicCache
) -> PromptStates:
    """What was read, in the form of a prompt's states; `pooled` predicts the next token."""
    layers = cache.layers
    return PromptStates(hidden, [x.keys for x in layers], [x.values for x in layers], mask)


def cache_length(positions: int) -> int:
    """The power of two above `positions`: always with padding, for attention without any may be
    computed in another way."""
    return max(SHORTEST_CACHE, 1 << positions.bit_length())


def exact_search(
    llm: CausalLM, pasts: Sequence[PromptStates], limits: Sequence[int]
) -> list[list[int]]:
    """The most probable tokens after each of `pasts`, of one row each, until the end token or the
    row's limit."""
    said: list[list[int]] = [[] for _ in pasts]
    same_length = defaultdict(list)
    for place, past in enumerate(pasts):
        if limits[place] > 0:
            same_length[cache_length(past.mask.shape[1])].append(place)
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
    """`ROWS` rows that are at the same step: those of `places`, and repetitions of the first that
    only fill the shape. `token`: what each said last."""

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
        """Add the next token of each row to what it `said`, and drop the rows that end."""
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
        """What the rows that go on have read, and the token that each of them said."""
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
    """The rows that go on, in as few groups as can be."""
    places = [place for group in groups for place in group.places.values()]
    if -(-len(places) // ROWS) == len(groups):
        return groups
    if not places:
        return []
    pasts, tokens = zip(*(group.left() for group in groups if group.places), strict=True)
    return make_groups(llm, places, stack_prompts(pasts), torch.cat(tokens))
