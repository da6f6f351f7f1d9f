"""The result of a pass over prompts, and the place of padding in a KV cache.

Padding is on the left of every row's real tokens. So real tokens are adjacent, and attention
windows, chunks, ALiBi and position counts include real tokens only.
"""

# B batch, U distinct prompts, P prompt tokens, L positions in the cache, D width of the LLM

from dataclasses import dataclass

import torch
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
        """The prompt states for the rows of a batch."""
        return PromptStates(
            self.pooled[index],
            [key[index] for key in self.keys],
            [value[index] for value in self.values],
            self.mask[index],
        )

    def cache(self) -> DynamicCache:
        """A KV cache that begins with the prompt."""
        cache = DynamicCache()
        for layer, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            cache.update(key, value, layer)
        return cache


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
