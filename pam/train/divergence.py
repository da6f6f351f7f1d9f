"""Detects losses that are not finite in every epoch, and fails if the last epoch has one.

ESPnet leaves such batches out of its means. If no gradient of an epoch is finite, it ends the
training without an error.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from espnet2.train.reporter import Average, SubReporter, aggregate
from torch import nn

from pam.errors import PamError

# In the statistics, nonfinite_TASK is the share of the task's batches whose loss is not finite.
NONFINITE = "nonfinite_"
RANKS = {"rank_loss": "min", "rank_epoch": "max"}  # ESPnet's criteria for the epochs to keep
RATES = {  # the options of a phase's learning rates, by its folder
    "warmup": "the rates of phases.ctc.optim_conf (lr, muon_lr)",
    "train": "the rates of phases.llm.optim_conf (lr, lora_lr, router_lr, muon_lr)",
}
Stats = Mapping[int, Mapping[str, Mapping[str, Any]]]  # of ESPnet's reporter: epoch → part → name


def flag_nonfinite(model: nn.Module, inputs: tuple, options: Mapping, result: tuple) -> tuple:
    """Forward hook: adds to the statistics whether the batch's loss is not finite, by task."""
    loss, stats, weight = result
    value = (~torch.isfinite(loss.detach())).float()
    own = model.tasks[int(options["task"][0])]
    flags = {
        f"{NONFINITE}{task}": value if task == own else torch.full_like(value, torch.nan)
        for task in model.tasks
    }
    return loss, stats | flags, weight


def flagged(part: Mapping[str, Any]) -> list[str]:
    """The tasks with a loss that is not finite. `part`: statistics of training or validation."""
    shares = {k.removeprefix(NONFINITE): v for k, v in part.items() if k.startswith(NONFINITE)}
    return [task for task, share in shares.items() if share > 0]


def flagged_so_far(reporter: SubReporter) -> list[str]:
    """As `flagged`, for the epoch in progress."""
    stats = reporter.stats.items()  # NaN in batches of other tasks
    return flagged({name: any(v.value > 0 for v in values) for name, values in stats})


def rank(reporter: SubReporter) -> None:
    """Add `RANKS` to the statistics of a validation: the dev loss and the epoch.

    If the loss of a batch is not finite, both get the worst values, so that this epoch's checkpoint
    never replaces a good one.
    """
    bad = flagged_so_far(reporter)
    loss = sys.float_info.max if bad else aggregate(reporter.stats["loss"])
    reporter.stats["rank_loss"] = [Average(loss)]
    reporter.stats["rank_epoch"] = [Average(0 if bad else reporter.get_epoch())]


def refuse_nonfinite_dev_loss(stats: Stats, folder: Path) -> None:
    """PamError if the dev loss of the last epoch of the training in `folder` is not finite.

    Earlier epochs may have such a loss: the choice of checkpoints skips them.
    """
    last = max(stats)
    if tasks := flagged(stats[last]["valid"]):
        raise diverged(folder, last, f"the dev loss of {', '.join(tasks)} is not finite")


def diverged(folder: Path, epoch: int, what: str) -> PamError:
    """The error of a diverged training. `folder` is exp/NAME/PHASE."""
    rates = RATES[folder.name]
    return PamError(
        f"{folder}: the training diverged in epoch {epoch}: {what}: lower {rates}; then "
        f"give another --expname or remove {folder.parent}"
    )
