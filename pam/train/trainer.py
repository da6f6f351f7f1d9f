"""ESPnet's Trainer with repairs: atomic checkpoints, safe loading, a schedule that ends where it
should, and several processes that train as one does.

ESPnet takes the mean of the loss over `accum_grad` batches and over processes; the shares that the
model gives of it (`pam.model.joint`) make that the joint batch's loss. Its epochs must be multiples
of `accum_grad`: batches behind the last update of an epoch would be lost (`pam.train.phases`).
"""

import datetime
import os
from collections.abc import Iterable, Iterator, Sequence
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
from pam.train.divergence import diverged, flag_nonfinite, flagged_so_far, rank

# What ESPnet's reporter leaves in a checkpoint besides tensors and plain values.
REPORTER_TYPES = [
    datetime.timedelta,
    np._core.multiarray.scalar,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
]

RANK_SEED = 1_000_003  # more than there are epochs: no two processes share a seed


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


def count_skips(iterator: Iterable, schedulers: Sequence, accum_grad: int) -> Iterator:
    """The batches. ESPnet leaves an update out if its gradient is not finite, and then steps no
    scheduler: they are told."""
    done = [scheduler.last_epoch for scheduler in schedulers]
    for number, batch in enumerate(iterator, 1):
        yield batch
        if number % accum_grad == 0:  # ESPnet has just made an update, or left it out
            for scheduler, before in zip(schedulers, done, strict=True):
                if scheduler.last_epoch == before:
                    scheduler.skip()
            done = [scheduler.last_epoch for scheduler in schedulers]


class PaMTrainer(Trainer):
    """See the module."""

    @classmethod
    def run(cls, model, distributed_option, **others) -> None:
        model.register_forward_hook(flag_nonfinite, with_kwargs=True)
        if distributed_option.distributed:
            model.register_forward_hook(with_an_axis)
        with atomic_saves():
            super().run(model=model, distributed_option=distributed_option, **others)

    @classmethod
    def train_one_epoch(
        cls, model, iterator, schedulers, options, distributed_option, reporter, **others
    ):
        if distributed_option.distributed:
            # ESPnet seeds all processes alike: dropout would hide the same places in each of them.
            torch.manual_seed(torch.initial_seed() + RANK_SEED * distributed_option.dist_rank)
        nothing_learned = super().train_one_epoch(
            model=model,
            iterator=count_skips(iterator, schedulers, options.accum_grad),
            schedulers=schedulers,
            options=options,
            distributed_option=distributed_option,
            reporter=reporter,
            **others,
        )
        if nothing_learned:  # ESPnet would end the training without an error
            cls.refuse(Path(options.output_dir), reporter)
        return nothing_learned

    @classmethod
    def refuse(cls, folder: Path, reporter) -> None:
        """UserError: no update of an epoch had a finite gradient."""
        tasks = ", ".join(flagged_so_far(reporter))
        loss = f"; the loss of {tasks} is not finite" if tasks else ""
        raise diverged(folder, reporter.get_epoch(), f"no update had a finite gradient{loss}")

    @classmethod
    def validate_one_epoch(cls, reporter, **others) -> None:
        super().validate_one_epoch(reporter=reporter, **others)
        rank(reporter)

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
