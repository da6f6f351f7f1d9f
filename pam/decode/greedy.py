"""Greedy search, batched, with a KV cache.

Up to rounding, the answers of a batch equal those of single utterances. `pam.decode.exact` makes
them equal in bfloat16 too.
"""

# B batch, U frames after fusion, V positions of prompt and audio, P prompt tokens, R routed experts

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from pam.decode.repeats import forbid_repeats
from pam.encoders.padding import padding_mask
from pam.llm.causal_lm import CausalLM
from pam.llm.prompts import PromptStates, pad_left, stack_prompts, without_padding
from pam.model.speech_llm import ESPnetPaMModel
from pam.rate import FRAMES_PER_SECOND

SHORTEST_LIMIT = 16  # tokens; the limit by the audio's length is never less


@dataclass
class GreedyOutput:
    """Answers of a batch.

    Attributes:
        texts: the answers.
        tokens: their token ids, without the end token.
        experts: index of the chosen expert of each row, None without a router.
        posteriors: p of equation 8 [B, R], None without a router.
        logprobs: log-probability of each row's tokens in nats, with the end token if there is one.
        passes: passes of the LLM over tokens of the answers.
        limits: the largest number of tokens of each row.
    """

    texts: list[str]
    tokens: list[list[int]]
    experts: list[int] | None
    posteriors: Float[Tensor, "B R"] | None
    logprobs: list[float]
    passes: int
    limits: list[int]


class PromptMemory:
    """Caches the states of the prompts that were used last, up to `most` bytes. Each is computed
    once, in batches of `rows`, without gradients."""

    def __init__(self, model: ESPnetPaMModel, rows: int = 32, most: int = 1 << 29):
        self.model, self.rows, self.most = model, rows, most
        self.known: dict[str, PromptStates] = {}
        self.nbytes = 0  # of all that are known

    def __call__(self, prompts: Sequence[str]) -> PromptStates:
        """The states of `prompts`, one row each."""
        self.prepare(prompts)
        return stack_prompts([self.known[prompt] for prompt in prompts])

    @torch.no_grad()
    def prepare(self, prompts: Iterable[str]) -> None:
        """Compute the states of those prompts that are new, together. At least these are kept."""
        asked = list(dict.fromkeys(prompts))
        self.learn([prompt for prompt in asked if prompt not in self.known])
        for prompt in asked:  # the last ones are those used last
            self.known[prompt] = self.known.pop(prompt)
        for prompt in list(self.known)[: len(self.known) - len(asked)]:
            if self.nbytes <= self.most:
                break
            self.nbytes -= self.known.pop(prompt).nbytes

    def learn(self, new: Sequence[str]) -> None:
        """Compute and store the states of new prompts."""
        for start in range(0, len(new), self.rows):
            chunk = new[start : start + self.rows]
            states = self.model.read_prompts(chunk)
            for row, prompt in enumerate(chunk):
                self.keep(prompt, without_padding(states, row))

    def keep(self, prompt: str, states: PromptStates) -> None:
        """Store the states of a new prompt."""
        self.known[prompt] = states
        self.nbytes += states.nbytes


@torch.no_grad()
def greedy(
    model: ESPnetPaMModel,
    features: Mapping[str, Tensor],
    lengths: Mapping[str, Int[Tensor, " B"]],
    prompts: Sequence[str],
    max_new_tokens: int = 100,
    memory: PromptMemory | None = None,
    expert: Int[Tensor, " B"] | None = None,
    max_tokens_per_second: float = 0.0,
    no_repeat_ngram_size: int = 0,
) -> GreedyOutput:
    """Answer `prompts` about the audio of each row.

    Args:
        features, lengths: encoder states NAME [B, T, S·C] and their numbers of frames, or audio
            `speech` [B, N] and its numbers of samples.
        memory: prompt states to reuse between batches.
        expert: route to this expert instead of the router's choice.
        max_tokens_per_second: an answer has at most this many tokens per second of audio, but the
            limit is never below 16. It ends answers that repeat themselves. 0: no such limit.
        no_repeat_ngram_size: no answer has a sequence of so many tokens twice; 0: all may.
    """
    batch = {**features, **{f"{name}_lengths": value for name, value in lengths.items()}}
    batch = {name: value.to(model.device) for name, value in batch.items()}
    prompt = (memory or PromptMemory(model))(prompts)
    with model.autocast():
        logits, gate = model.route(prompt, expert)
        states, frames = model.states(batch)
        limits = token_limits(frames, max_new_tokens, max_tokens_per_second)
        audio = model.fuse(states, frames, gate)
        tokens, logprobs = search(model.llm, prompt, *audio, limits, no_repeat_ngram_size)
    texts = [model.tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens]
    routed = logits is not None
    return GreedyOutput(
        texts,
        tokens,
        gate.argmax(-1).tolist() if routed else None,
        logits.softmax(-1).cpu() if routed else None,
        logprobs,
        max(map(len, tokens)),
        limits.tolist(),
    )


def token_limits(
    frames: Int[Tensor, " B"], max_new_tokens: int, max_tokens_per_second: float
) -> Int[Tensor, " B"]:
    """The largest number of tokens of an answer about `frames` of audio (25 per second)."""
    limits = torch.full_like(frames, max_new_tokens)
    if max_tokens_per_second > 0:
        by_length = (frames * max_tokens_per_second / FRAMES_PER_SECOND).ceil().long()
        limits = torch.minimum(limits, by_length.clamp(min=SHORTEST_LIMIT))
    return limits


def listen(
    llm: CausalLM,
    prompt: PromptStates,
    audio: Float[Tensor, "B U D"],
    frames: Int[Tensor, " B"],
) -> tuple[Float[Tensor, "B D"], Bool[Tensor, "B V"], DynamicCache]:
    """Read prompt and audio.

    Returns the state that predicts each row's first token, the mask of prompt and audio, and the KV
    cache.
    """
    cache = prompt.cache()
    audio, frames = llm.turn(audio, frames)
    mask = torch.cat([prompt.mask, padding_mask(frames, audio.shape[1])], dim=1)
    start = prompt.mask.sum(1, keepdim=True)
    positions = start + torch.arange(audio.shape[1], device=audio.device)
    hidden = llm.read(audio, mask, positions, cache)
    # Rows are padded on the right: the first token follows each row's last real frame.
    hidden = hidden[torch.arange(len(hidden), device=hidden.device), frames - 1]
    mask = pad_left(cache, mask)  # the next token follows each row's last real frame
    return hidden, mask, cache


def search(
    llm: CausalLM,
    prompt: PromptStates,
    audio: Float[Tensor, "B U D"],
    frames: Int[Tensor, " B"],
    limits: Int[Tensor, " B"],
    no_repeat: int = 0,
) -> tuple[list[list[int]], list[float]]:
    """Greedy tokens of each row until it ends or reaches its limit, and their log-probability."""
    hidden, mask, cache = listen(llm, prompt, audio, frames)
    position = mask.sum(1, keepdim=True)
    ended = torch.zeros(len(audio), dtype=torch.bool, device=audio.device)
    said: list[Int[Tensor, " B"]] = []
    logprobs = torch.zeros(len(audio), device=audio.device)
    for step in range(int(limits.max())):
        ended |= step >= limits
        logits = llm.logits(hidden)
        allowed = logits
        if no_repeat > 0 and said:
            allowed = forbid_repeats(logits, torch.stack(said, 1).tolist(), no_repeat)
        best = allowed.max(-1)
        logprobs += (best.values - logits.logsumexp(-1)).masked_fill(ended, 0)
        token = best.indices.masked_fill(ended, llm.eos)
        ended |= token == llm.eos
        if ended.all():
            break
        said.append(token)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        hidden = llm.read(llm.embed(token)[:, None], mask, position, cache)[:, 0]
        position = position + 1
    rows = torch.stack(said, 1).tolist() if said else [[] for _ in range(len(audio))]
    rows = [row[: row.index(llm.eos)] if llm.eos in row else row for row in rows]
    return rows, logprobs.tolist()
