"""Files that `torch.save` wrote, read without running what a pickle may hold."""

import pickle
from pathlib import Path
from typing import Any

import torch

from pam.errors import UserError

# What torch.load raises of a file that is missing, cut off or no checkpoint at all.
DAMAGED = (OSError, RuntimeError, ValueError, LookupError, EOFError, pickle.UnpicklingError)


def read_checkpoint(path: str | Path, device: str = "cpu") -> Any:
    """Tensors, and plain containers of them.

    A pickle that would run code is an error (`UserError`), as is a file that cannot be read.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read: {reason}") from error


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The weights of a model, by name; `UserError` where the file holds anything else."""
    weights = read_checkpoint(path)
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        raise UserError(f"{path} holds no weights by name")
    return weights
