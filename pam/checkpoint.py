"""Read files of `torch.save` without running pickled code."""

import pickle
from pathlib import Path
from typing import Any

import torch

from pam.errors import UserError

# The exceptions of torch.load for a file that is missing, truncated or not a checkpoint.
DAMAGED = (OSError, RuntimeError, ValueError, LookupError, EOFError, pickle.UnpicklingError)


def read_checkpoint(path: str | Path, device: str = "cpu") -> Any:
    """Read tensors and plain containers of them.

    `UserError` for a file that cannot be read or whose pickle would run code.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read: {reason}") from error


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The weights of a model, by name. `UserError` if the file holds anything else."""
    weights = read_checkpoint(path)
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        raise UserError(f"{path} holds no weights by name")
    return weights
