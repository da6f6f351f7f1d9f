"""Compare the states of two ways to run an LLM's layers on a few tokens."""

import torch
from torch import Tensor

LIMIT = 1e-3, 0.05  # largest relative error, in float32 and in smaller types


def differ(got: Tensor, expected: Tensor) -> bool:
    limit = LIMIT[expected.dtype not in (torch.float32, torch.float64)]
    expected = expected.float()
    return not bool((got.float() - expected).norm() <= limit * expected.norm())
