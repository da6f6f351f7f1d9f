"""Forbids tokens that would repeat a sequence of the answer, as transformers does."""

# n rows, V vocabulary

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import NoRepeatNGramLogitsProcessor


def forbid_repeats(
    logits: Float[Tensor, "n V"], said: Sequence[Sequence[int]], size: int
) -> Float[Tensor, "n V"]:
    """The logits after which no sequence of `size` tokens comes twice in an answer.

    `said`: the tokens of each answer so far. A forbidden token gets the lowest finite value, not
    -inf, so that an entropy can be computed. 0: nothing is forbidden.
    """
    if size == 0:
        return logits
    process = NoRepeatNGramLogitsProcessor(size)
    rows = [
        process(torch.tensor([tokens], dtype=torch.long, device=row.device), row[None])
        for tokens, row in zip(said, logits, strict=True)
    ]
    return torch.cat(rows).clamp(min=torch.finfo(logits.dtype).min)
