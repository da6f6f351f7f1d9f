"""Greedy search, batched, with a KV cache; a batch gives what single utterances give."""

# B batch, U frames after fusion, P prompt tokens, R routed experts

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pam.encoders.padding import padding_mask
from pam.llm.prompts import PromptStates, pad_left
from pam.model.speech_llm import ESPnetPaMModel

SHORTEST_LIMIT = 16  # tokens that any answer may have, however short the audio


@dataclass
class GreedyOutput:
    """Answers of a batch.

    Attributes:
        texts: the answers.
        tokens: their token ids, without the end token.
        experts: index of the routed expert of each row, None where nothing is routed.
        posteriors: p of equation 8 [B, R], None where nothing is routed.
    """

    texts: list[str]
    tokens: list[list[int]]
    experts: list[int] | None
    posteriors: Float[Tensor, "B R"] | None


class PromptMemory:
    """States of prompts, each computed once however many utterances share it."""

    def __init__(self, model: ESPnetPaMModel, rows: int = 32):
        self.model, self.rows = model, rows
        self.known: dict[str, PromptStates] = {}

    def __call__(self, prompts: Sequence[str]) -> PromptStates:
        """The states of a row for each of `prompts`."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.known]
        for start in range(0, len(new), self.rows):
            chunk = new[start : start + self.rows]
            states = self.model.read_prompts(chunk)
            for row, prompt in enumerate(chunk):
                self.known[prompt] = without_padding(states, row)
        return stack_prompts([self.known[prompt] for prompt in prompts])


def without_padding(states: PromptStates, row: int) -> PromptStates:
    length = int(states.mask[row].sum())
    one = slice(row, row + 1)
    return PromptStates(
        states.pooled[one],
        [key[one, :, -length:].clone() for key in states.keys],
        [value[one, :, -length:].clone() for value in states.values],
        states.mask[one, -length:],
    )


def stack_prompts(prompts: Sequence[PromptStates]) -> PromptStates:
    """Rows of different lengths as one batch, padded on the left."""
    longest = max(p.mask.shape[1] for p in prompts)

    def pad(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, longest - x.shape[2], 0))

    layers = range(len(prompts[0].keys))
    return PromptStates(
        torch.cat([p.pooled for p in prompts]),
        [torch.cat([pad(p.keys[layer]) for p in prompts]) for layer in layers],
        [torch.cat([pad(p.values[layer]) for p in prompts]) for layer in layers],
        torch.cat([F.pad(p.mask, (longest - p.mask.shape[1], 0)) for p in prompts]),
    )


@torch.no_grad()
def greedy(
    model: ESPnetPaMModel,
    features: Mapping[str, Tensor],
    lengths: Mapping[str, Int[Tensor, " B"]],
    prompts: Sequence[str],
    max_new_tokens: int = 100,
    memory: PromptMemory | None = None,
    expert: Int[Tensor, " B"] | None = None,
    maxlenratio: float = 0.0,
) -> GreedyOutput:
    """Answer `prompts` about the audio of each row.

    Args:
        features, lengths: encoder states NAME [B, T, S·C] and their frames (or `speech` [B, N]).
        memory: prompt states to reuse between batches.
        expert: route to this expert instead of the router's choice.
        maxlenratio: an answer has at most this many tokens per audio feature that the LLM hears
            (but 16 in any case), so that an answer that loops ends; 0 sets no such limit. As in
            ESPnet.
    """
    batch = {**features, **{f"{name}_lengths": value for name, value in lengths.items()}}
    batch = {name: value.to(model.device) for name, value in batch.items()}
    prompt = (memory or PromptMemory(model))(prompts)
    with model.autocast():
        logits, gate = model.route(prompt, expert)
        audio, frames = model.hear(*model.states(batch), gate)
        limits = token_limits(frames, max_new_tokens, maxlenratio)
        tokens = search(model, prompt, audio, frames, limits)
    texts = [model.tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens]
    if logits is None:
        return GreedyOutput(texts, tokens, None, None)
    return GreedyOutput(texts, tokens, gate.argmax(-1).tolist(), logits.softmax(-1).cpu())


def token_limits(
    frames: Int[Tensor, " B"], max_new_tokens: int, maxlenratio: float
) -> Int[Tensor, " B"]:
    """How many tokens each row may have."""
    limits = torch.full_like(frames, max_new_tokens)
    if maxlenratio > 0:
        by_length = (frames * maxlenratio).ceil().long().clamp(min=SHORTEST_LIMIT)
        limits = torch.minimum(limits, by_length)
    return limits


def search(
    model: ESPnetPaMModel,
    prompt: PromptStates,
    audio: Float[Tensor, "B U D"],
    frames: Int[Tensor, " B"],
    limits: Int[Tensor, " B"],
) -> list[list[int]]:
    """The most probable token again and again, until every row has ended or is at its limit."""
    llm = model.llm
    cache = prompt.cache()
    audio, frames = llm.turn(audio, frames)
    real = padding_mask(frames, audio.shape[1])
    mask: Bool[Tensor, "B all"] = torch.cat([prompt.mask, real], dim=1)
    start = prompt.mask.sum(1, keepdim=True)
    positions = start + torch.arange(audio.shape[1], device=audio.device)
    hidden = llm.read(audio, mask, positions, cache)
    # Rows are padded on the right: the first token follows each row's last real frame.
    hidden = hidden[torch.arange(len(hidden), device=hidden.device), frames - 1]
    mask = pad_left(cache, mask)  # what follows stands right behind each row's last real frame
    position = start + frames[:, None]
    ended = torch.zeros(len(audio), dtype=torch.bool, device=audio.device)
    said: list[Int[Tensor, " B"]] = []
    for step in range(int(limits.max())):
        ended |= step >= limits
        token = llm.logits(hidden).argmax(-1).masked_fill(ended, llm.eos)
        ended |= token == llm.eos
        if ended.all():
            break
        said.append(token)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        hidden = llm.read(llm.embed(token)[:, None], mask, position, cache)[:, 0]
        position = position + 1
    rows = torch.stack(said, 1).tolist() if said else [[] for _ in range(len(audio))]
    return [row[: row.index(llm.eos)] if llm.eos in row else row for row in rows]
