"""The result of a pass over prompts, and the place of padding in a KV cache.

Padding is on the left of every row's real tokens. So real tokens are adjacent, and attention
windows, chunks, ALiBi and position counts include real tokens only.
"""

# B batch, U distinct prompts, P prompt tokens, L positions in the cache, D width of the LLM

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache


@dataclass
class PromptStates:
    """The result of a pass over prompts, as later passes need it.

    Attributes:
        pooled: h_prompt [U, D], float32.
        keys, values: per layer [U, heads, P, head width].
        mask: [U, P], True = a real token (prompts are padded on the left).
    """

    pooled: Float[Tensor, "U D"]
    keys: list[Tensor]
    values: list[Tensor]
    mask: Bool[Tensor, "U P"]

    def select(self, index: Int[Tensor, " B"]) -> "PromptStates":
        """The prompt states for the rows of a batch, without padding that all of them have."""
        first = self.mask.shape[1] - int(self.mask[index].sum(1).max())
        return PromptStates(
            self.pooled[index],
            [key[index, :, first:] for key in self.keys],
            [value[index, :, first:] for value in self.values],
            self.mask[index, first:],
        )

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values."""
        return sum(part.nbytes for part in (*self.keys, *self.values))

    def to(self, device: torch.device) -> "PromptStates":
        return PromptStates(
            self.pooled.to(device),
            [key.to(device) for key in self.keys],
            [value.to(device) for value in self.values],
            self.mask.to(device),
        )

    def cache(self) -> DynamicCache:
        """A KV cache that begins with the prompt."""
        cache = DynamicCache()
        for layer, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            cache.update(key, value, layer)
        return cache


def without_padding(states: PromptStates, row: int) -> PromptStates:
    length = int(states.mask[row].sum())
    one = slice(row, row + 1)
    return PromptStates(
        states.pooled[one],
        [key[one, :, -length:].clone() for key in states.keys],
        [value[one, :, -length:].clone() for value in states.values],
        states.mask[one, -length:],
    )


def stack_prompts(prompts: Sequence[PromptStates], shortest: int = 0) -> PromptStates:
    """Join rows into one batch, padded on the left to the longest row, at least to `shortest`."""
    longest = max(shortest, *(p.mask.shape[1] for p in prompts))

    def pad(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, longest - x.shape[2], 0))

    layers = range(len(prompts[0].keys))
    return PromptStates(
        torch.cat([p.pooled for p in prompts]),
        [torch.cat([pad(p.keys[layer]) for p in prompts]) for layer in layers],
        [torch.cat([pad(p.values[layer]) for p in prompts]) for layer in layers],
        torch.cat([F.pad(p.mask, (longest - p.mask.shape[1], 0)) for p in prompts]),
    )


def pad_left(cache: DynamicCache, mask: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """Move the padding in `cache` to the left of the real tokens, and keep their order.

    `mask` is True for real positions; returns the mask after the move.
    """
    order = mask.long().argsort(dim=1, stable=True)
    if torch.equal(order, torch.arange(mask.shape[1], device=mask.device).expand_as(order)):
        return mask
    for layer in cache.layers:
        layer.keys = layer.keys.take_along_dim(order[:, None, :, None], dim=2)
        layer.values = layer.values.take_along_dim(order[:, None, :, None], dim=2)
    return mask.gather(1, order)


def pool_prompts(
    hidden: Float[Tensor, "U P D"], mask: Bool[Tensor, "U P"], kind: str, opening: int
) -> Float[Tensor, "U D"]:
    """h_prompt (equation 7): the state of the "last" token, or the "mean" after the `opening`.

    Padding is on one side. The mean leaves the opening's tokens out: all prompts share them, and a
    BOS' state is far larger than others.
    """
    number, lengths = mask.cumsum(1), mask.sum(1, keepdim=True)
    if kind == "last":
        return hidden[mask & (number == lengths)].float()
    own = hidden.float().masked_fill(~(mask & (number > opening))[..., None], 0)
    return own.sum(1) / (lengths - opening)
