"""Checkpoints inside an epoch: every few minutes, at the end of its batches, and on a signal.

ESPnet's own checkpoint.pth is written after an epoch and its validation. midpoint.pth beside it
holds what the rest of an epoch depends on: a training that was ended at any point goes on with the
next batch after it: bit for bit on a CPU; on a GPU as far as its kernels give the same twice. It is
always between two updates of the optimizer.

SIGTERM and SIGUSR1 ask a training to stop (`pam.train.signals`). It finishes the update, writes
midpoint.pth and exits with 128 + the number of the signal: 143 and 138.
"""

import random
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from espnet2.train.reporter import Average, SubReporter, WeightedAverage
from torch import nn

from pam.checkpoint import read_checkpoint
from pam.log import get_logger
from pam.train.belonging import refuse_another
from pam.train.processes import from_first, gathered, is_first, rank, world
from pam.train.signals import StopRequest

FILE = "midpoint.pth"
FLOAT = torch.float64  # of Python's numbers

logger = get_logger(__name__)


@dataclass
class EpochState:
    """What training changes in an epoch, besides the random states."""

    model: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    schedulers: Sequence[Any]
    reporter: SubReporter

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "reporter": statistics(self.reporter),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        for scheduler, own in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(own)
        restore_statistics(self.reporter, state["reporter"])


class Midpoint:
    """Writes and reads midpoint.pth of a phase.

    Args:
        folder: of ESPnet's output.
        minutes: between two midpoints.
        accum_grad: batches per update.
    """

    def __init__(self, folder: Path, minutes: float, accum_grad: int):
        self.file, self.seconds, self.accum_grad = folder / FILE, 60 * minutes, accum_grad
        self.stop, self.saved = StopRequest(), time.monotonic()
        self.random: list[dict[str, Any]] | None = None  # of each process, to restore

    def resume(self, state: EpochState) -> int:
        """Restore the epoch of `state`; the number of its batches that are done."""
        self.random = None
        if not from_first(self.file.is_file):
            return 0
        found = read_checkpoint(self.file, "cpu")
        refuse_another(self.file, found, state.model.belongs_to)
        if found["epoch"] != state.reporter.get_epoch():  # its epoch has been finished
            return 0
        state.load_state_dict(found)
        self.random = found["random"]
        logger.info("epoch %d goes on after %d batches", found["epoch"], found["batches"])
        return found["batches"]

    def keep(self, batches: Iterable, state: EpochState, done: int, total: int) -> Iterator:
        """Yield the `batches` after the first `done` of `total`, and write midpoints.

        Raises SystemExit after a signal.
        """
        self.leave_if_asked()
        for number, batch in enumerate(batches, done + 1):
            self.restore_random()  # the loader has drawn its seed now
            yield batch
            if number % self.accum_grad:
                continue
            asked, due = self.agreed()
            if asked or due or number == total:
                self.save(state, number)
            if asked:
                self.leave(asked)
        self.restore_random()

    def checked(self, batches: Iterable) -> Iterator:
        """Yield the batches of a validation. Raises SystemExit after a signal."""
        for batch in batches:
            self.leave_if_asked()
            yield batch

    def agreed(self) -> tuple[int, bool]:
        """The signal that one of the processes got (0: none), and whether a midpoint is due."""
        due = time.monotonic() - self.saved >= self.seconds
        flags = torch.tensor([self.stop.number, int(due)])
        if world() > 1:
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        asked, due = flags.tolist()
        return asked, bool(due)

    def save(self, state: EpochState, batches: int) -> None:
        """Write midpoint.pth. All processes must call this."""
        states = gathered([random_state()])

        def write() -> None:
            found = {
                "epoch": state.reporter.get_epoch(),
                "batches": batches,
                **state.state_dict(),
                "random": states,
            }
            torch.save(found, self.file)  # atomic, and marked: `pam.train.trainer`

        from_first(write)  # the others wait: if one left now, the launcher would end all
        self.saved = time.monotonic()

    def remove(self) -> None:
        if is_first():
            self.file.unlink(missing_ok=True)

    def leave_if_asked(self) -> None:
        if asked := self.agreed()[0]:
            self.leave(asked)

    def leave(self, number: int) -> None:
        name = signal.Signals(number).name
        logger.info("%s: stopped after an update; the same command resumes", name)
        raise SystemExit(128 + number)

    def restore_random(self) -> None:
        """Restore this process's random states, once, if there were as many processes."""
        if self.random is None:
            return
        if len(self.random) == world():
            set_random_state(self.random[rank()])
        else:
            was = len(self.random)
            logger.info("midpoint of %d processes: the rest of its epoch drops others", was)
        self.random = None


def statistics(reporter: SubReporter) -> dict[str, Any]:
    """The statistics of an epoch so far, as tensors [batches]; weights of means are NaN."""
    values = {
        name: torch.tensor([[v.value, getattr(v, "weight", np.nan)] for v in found], dtype=FLOAT)
        for name, found in reporter.stats.items()
    }
    return {
        "count": reporter.count,
        "total_count": reporter.total_count,
        "seconds": time.perf_counter() - reporter.start_time,
        "weighted": [k for k, v in reporter.stats.items() if isinstance(v[0], WeightedAverage)],
        "values": values,
    }


def restore_statistics(reporter: SubReporter, found: Mapping[str, Any]) -> None:
    reporter.count, reporter.total_count = found["count"], found["total_count"]
    reporter.start_time = time.perf_counter() - found["seconds"]
    for name, rows in found["values"].items():
        weighted = name in found["weighted"]
        reporter.stats[name] = [
            WeightedAverage(value, weight) if weighted else Average(value)
            for value, weight in rows.tolist()
        ]


def random_state() -> dict[str, Any]:
    """The states of all random generators of this process."""
    name, keys, *rest = np.random.get_state()
    version, numbers, gauss = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": [version, list(numbers), gauss],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
