"""ESPnet's Trainer with four repairs.

Checkpoints are written atomically and loaded safely; there are some inside an epoch too
(`pam.train.midpoint`). The schedule ends with the last update.
Several processes give the same result as one.

ESPnet averages the loss over `accum_grad` batches and over processes. The model scales its loss
(`pam.model.joint`) so that this average is the loss of the joint batch. The length of an epoch must
be a multiple of `accum_grad`: ESPnet drops the batches after an epoch's last update
(`pam.train.phases`).
"""

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.trainer import Trainer
from torch import nn

from pam.checkpoint import read_checkpoint, write_checkpoint
from pam.train.belonging import KEY, refuse_another
from pam.train.divergence import diverged, flag_nonfinite, flagged_so_far, rank
from pam.train.iterators import rest_of
from pam.train.midpoint import EpochState, Midpoint
from pam.train.processes import is_first
from pam.train.speed import MeteredOptions, metered

# Types of ESPnet's reporter in a checkpoint, besides tensors and plain values.
REPORTER_TYPES = [
    datetime.timedelta,
    np._core.multiarray.scalar,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
]

RANK_SEED = 1_000_003  # greater than the number of epochs, so that no two processes share a seed


def load_checkpoint(path: str | Path, device: str = "cpu") -> dict[str, Any]:
    """Load a training checkpoint without executing pickled code."""
    with torch.serialization.safe_globals(REPORTER_TYPES):
        return read_checkpoint(path, device)


@contextmanager
def atomic_saves(belongs_to: Mapping[str, Any]) -> Iterator[None]:
    """Make torch.save atomic: a killed run leaves no half checkpoint.

    A checkpoint, in contrast to a model, gets `belongs_to` too (`pam.train.belonging`).
    torch.save itself is replaced because ESPnet's `Trainer.run` offers no hook for saving.
    """
    plain = torch.save

    def save(value: Any, path: str | Path | IO[bytes], **options) -> None:
        if not isinstance(path, str | Path):  # pickle calls it for a tensor
            plain(value, path, **options)
            return
        if "optimizers" in value:
            value = {**value, KEY: dict(belongs_to)}
        write_checkpoint(path, value)

    torch.save = save
    try:
        yield
    finally:
        torch.save = plain


def with_an_axis(model: nn.Module, inputs: tuple, result: tuple) -> tuple:
    """Loss, statistics and weight as [1]: ESPnet's averages over processes need that shape."""
    return force_gatherable(result, result[0].device)


def count_skips(iterator: Iterable, schedulers: Sequence, accum_grad: int) -> Iterator:
    """Yield the batches, and tell the schedulers of each update that ESPnet skipped.

    ESPnet skips an update whose gradient is not finite, and does not step the schedulers then.
    """
    done = [scheduler.last_epoch for scheduler in schedulers]
    for number, batch in enumerate(iterator, 1):
        yield batch
        if number % accum_grad == 0:  # ESPnet has just made or skipped an update
            for scheduler, before in zip(schedulers, done, strict=True):
                if scheduler.last_epoch == before:
                    scheduler.skip()
            done = [scheduler.last_epoch for scheduler in schedulers]


@dataclass
class PhaseOptions(MeteredOptions):
    """ESPnet's options of a phase, with its meter and its midpoints."""

    midpoint: Midpoint


class PaMTrainer(Trainer):
    """See the module."""

    @classmethod
    def build_options(cls, args) -> "PhaseOptions":
        options = metered(super().build_options(args), args)
        folder = Path(options.output_dir)
        midpoint = Midpoint(folder, args.checkpoint_minutes, options.accum_grad)
        return PhaseOptions(**vars(options), midpoint=midpoint)

    @classmethod
    def run(cls, model, distributed_option, trainer_options, **others) -> None:
        model.register_forward_hook(flag_nonfinite, with_kwargs=True)
        if distributed_option.distributed:
            model.register_forward_hook(with_an_axis)
        midpoint = trainer_options.midpoint
        with atomic_saves(model.belongs_to), midpoint.stop.listening():
            super().run(
                model=model,
                distributed_option=distributed_option,
                trainer_options=trainer_options,
                **others,
            )
            midpoint.remove()
            midpoint.leave_if_asked()  # since the last batch of the validation

    @classmethod
    def train_one_epoch(
        cls,
        model,
        iterator,
        optimizers,
        schedulers,
        options,
        distributed_option,
        reporter,
        **others,
    ):
        if distributed_option.distributed:
            # ESPnet gives all processes one seed: dropout would use the same mask in each of them.
            torch.manual_seed(torch.initial_seed() + RANK_SEED * distributed_option.dist_rank)
        plain = getattr(model, "module", model)  # without DistributedDataParallel
        state = EpochState(plain, optimizers, schedulers, reporter)
        done, total = options.midpoint.resume(state), len(iterator)
        rest = rest_of(iterator, done)
        watched = options.meter.watch(rest, plain, options, reporter, others["summary_writer"])
        kept = options.midpoint.keep(watched, state, done, total)
        nothing_learned = super().train_one_epoch(
            model=model,
            # A skipped update is counted before a midpoint is written.
            iterator=count_skips(kept, schedulers, options.accum_grad),
            optimizers=optimizers,
            schedulers=schedulers,
            options=options,
            distributed_option=distributed_option,
            reporter=reporter,
            **others,
        )
        nothing_learned = nothing_learned and "grad_norm" not in reporter.stats  # before a midpoint
        if nothing_learned:  # ESPnet would end the training without an error
            cls.refuse(Path(options.output_dir), reporter)
        return nothing_learned

    @classmethod
    def refuse(cls, folder: Path, reporter) -> None:
        """Raise PamError: no update of the epoch had a finite gradient."""
        tasks = ", ".join(flagged_so_far(reporter))
        loss = f"; the loss of {tasks} is not finite" if tasks else ""
        raise diverged(folder, reporter.get_epoch(), f"no update had a finite gradient{loss}")

    @classmethod
    def validate_one_epoch(cls, iterator, reporter, options, **others) -> None:
        batches = options.midpoint.checked(iterator)
        super().validate_one_epoch(iterator=batches, reporter=reporter, options=options, **others)
        rank(reporter)

    @staticmethod
    def resume(
        checkpoint, model, reporter, optimizers, schedulers, scaler, ngpu=0, strict=True
    ) -> None:
        device = f"cuda:{torch.cuda.current_device()}" if ngpu > 0 else "cpu"
        states = load_checkpoint(checkpoint, device)
        refuse_another(checkpoint, states, model.belongs_to)
        model.load_state_dict(states["model"], strict=strict)
        reporter.load_state_dict(states["reporter"])
        own = Path(checkpoint).with_name(f"{reporter.get_epoch()}epoch.pth")
        if is_first() and not own.is_file():  # ESPnet writes it after checkpoint.pth
            write_checkpoint(own, states["model"])
        for optimizer, state in zip(optimizers, states["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        for scheduler, state in zip(schedulers, states["schedulers"], strict=True):
            if scheduler is not None:
                scheduler.load_state_dict(state)
