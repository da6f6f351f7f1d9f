"""Losses that are not finite: seen in every epoch, an error where the training ends with them.

ESPnet leaves such batches out of its means, and ends a training whose gradients are never finite
without an error.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from espnet2.train.reporter import Average, SubReporter, aggregate
from torch import nn

from pam.errors import UserError

NONFINITE = "nonfinite_"  # before a task's name, in the statistics: the share of its batches
RANKS = {"rank_loss": "min", "rank_epoch": "max"}  # what ESPnet chooses the kept epochs by
RATES = {  # that a phase learns with, by its folder
    "warmup": "phases.ctc.optim_conf.lr",
    "train": "the rates of phases.llm.optim_conf (lr, lora_lr, router_lr)",
}
Stats = Mapping[int, Mapping[str, Mapping[str, Any]]]  # of ESPnet's reporter: epoch → part → name


def flag_nonfinite(model: nn.Module, inputs: tuple, options: Mapping, result: tuple) -> tuple:
    """Forward hook: add to the statistics whether the loss of the batch's task is not finite."""
    loss, stats, weight = result
    value = (~torch.isfinite(loss.detach())).float()
    own = model.tasks[int(options["task"][0])]
    flags = {
        f"{NONFINITE}{task}": value if task == own else torch.full_like(value, torch.nan)
        for task in model.tasks
    }
    return loss, stats | flags, weight


def flagged(part: Mapping[str, Any]) -> list[str]:
    """The tasks that have a loss that is not finite in the statistics of one part of an epoch."""
    shares = {k.removeprefix(NONFINITE): v for k, v in part.items() if k.startswith(NONFINITE)}
    return [task for task, share in shares.items() if share > 0]


def flagged_so_far(reporter: SubReporter) -> list[str]:
    """As `flagged`, of an epoch that still runs."""
    stats = reporter.stats.items()  # NaN where a batch is of another task
    return flagged({name: any(v.value > 0 for v in values) for name, values in stats})


def rank(reporter: SubReporter) -> None:
    """Add `RANKS` to the statistics of a validation: the dev loss and the epoch, or, where the loss
    of a batch is not finite, the worst that there are. Such an epoch takes no other's place."""
    bad = flagged_so_far(reporter)
    loss = sys.float_info.max if bad else aggregate(reporter.stats["loss"])
    reporter.stats["rank_loss"] = [Average(loss)]
    reporter.stats["rank_epoch"] = [Average(0 if bad else reporter.get_epoch())]


def refuse_nonfinite_dev_loss(stats: Stats, folder: Path) -> None:
    """UserError where the last epoch of the training in `folder` has a dev loss that is not finite.

    An earlier epoch may have one: it is left out when checkpoints are chosen.
    """
    last = max(stats)
    if tasks := flagged(stats[last]["valid"]):
        raise diverged(folder, last, f"the dev loss of {', '.join(tasks)} is not finite")


def diverged(folder: Path, epoch: int, what: str) -> UserError:
    """`folder` is that of a phase, in the experiment's."""
    rates = RATES[folder.name]
    return UserError(
        f"{folder}: the training diverged in epoch {epoch}: {what}: lower {rates}, and give "
        f"another --expname or remove {folder.parent}"
    )
