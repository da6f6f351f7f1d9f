"""ESPnet's Trainer with four repairs: atomic checkpoints, safe loading, no left-over gradients, and
results that several processes can average."""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.trainer import Trainer
from torch import nn

from pam.atomic import atomic_path
from pam.checkpoint import read_checkpoint

# What ESPnet's reporter leaves in a checkpoint besides tensors and plain values.
REPORTER_TYPES = [
    datetime.timedelta,
    np._core.multiarray.scalar,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
]


def load_checkpoint(path: str | Path, device: str = "cpu") -> dict[str, Any]:
    """A training checkpoint, without executing pickles."""
    with torch.serialization.safe_globals(REPORTER_TYPES):
        return read_checkpoint(path, device)


@contextmanager
def atomic_saves() -> Iterator[None]:
    """torch.save writes beside its target and renames: a killed run leaves no half checkpoint.

    ESPnet's `Trainer.run` saves in the middle of a long method that offers no hook.
    """
    plain = torch.save

    def save(value: Any, path: str | Path, *args, **kwargs) -> None:
        with atomic_path(path) as part:
            plain(value, part, *args, **kwargs)
            with part.open("rb") as file:
                os.fsync(file.fileno())

    torch.save = save
    try:
        yield
    finally:
        torch.save = plain


def with_an_axis(model: nn.Module, inputs: tuple, result: tuple) -> tuple:
    """Loss, statistics and weight as [1], which ESPnet's averages over processes ask for."""
    return force_gatherable(result, result[0].device)


class PaMTrainer(Trainer):
    """See the module."""

    @classmethod
    def run(cls, model, distributed_option, **others) -> None:
        if distributed_option.distributed:
            model.register_forward_hook(with_an_axis)
        with atomic_saves():
            super().run(model=model, distributed_option=distributed_option, **others)

    @classmethod
    def train_one_epoch(cls, model, iterator, optimizers, *args, **kwargs) -> bool:
        # With accum_grad the last, incomplete group of an epoch would leak into the next one.
        for optimizer in optimizers:
            optimizer.zero_grad()
        return super().train_one_epoch(model, iterator, optimizers, *args, **kwargs)

    @staticmethod
    def resume(
        checkpoint, model, reporter, optimizers, schedulers, scaler, ngpu=0, strict=True
    ) -> None:
        device = f"cuda:{torch.cuda.current_device()}" if ngpu > 0 else "cpu"
        states = load_checkpoint(checkpoint, device)
        model.load_state_dict(states["model"], strict=strict)
        reporter.load_state_dict(states["reporter"])
        for optimizer, state in zip(optimizers, states["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        for scheduler, state in zip(schedulers, states["schedulers"], strict=True):
            if scheduler is not None:
                scheduler.load_state_dict(state)
