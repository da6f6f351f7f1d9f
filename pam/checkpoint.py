"""Checkpoints: files of `torch.save`, written atomically, read without running pickled code."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import save  # another name than torch.save, which `pam.train.trainer` replaces

from pam.atomic import atomic_path
from pam.disk import writing
from pam.errors import PamError

# The exceptions of torch.load for a file that is missing, truncated or not a checkpoint.
DAMAGED = (OSError, RuntimeError, ValueError, LookupError, EOFError, pickle.UnpicklingError)


def write_checkpoint(path: str | Path, value: Any) -> None:
    """Write a file that is complete, on the disk itself, once it has its name.

    `PamError` if the disk is full. (torch.save into a file would say "unexpected pos".)
    """
    content = io.BytesIO()
    save(value, content)
    with writing(path), atomic_path(path) as part, part.open("wb") as file:
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def read_checkpoint(path: str | Path, device: str = "cpu") -> Any:
    """Read tensors and plain containers of them.

    `PamError` for a file that cannot be read or whose pickle would run code.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise PamError(f"{path} cannot be read: {reason}") from error


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The weights of a model, by name. `PamError` if the file holds anything else."""
    weights = read_checkpoint(path)
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        raise PamError(f"{path} holds no weights by name")
    return weights
