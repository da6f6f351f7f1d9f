"""The phases of an experiment: CTC warm-up (an option), then training through the LLM."""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pam.atomic import write_json, write_text
from pam.checkpoint import write_checkpoint
from pam.errors import PamError
from pam.llm.template import FILE as TEMPLATE
from pam.log import get_logger
from pam.train.divergence import RANKS, flagged, refuse_nonfinite_dev_loss
from pam.train.iterators import TaskBatches, batches_by_task, limits, steps_of_passes
from pam.train.processes import from_first, require_shared, world
from pam.train.task import (
    length_jitter,
    phase_utt2task,
    read_lengths,
    run_task,
    training_inputs,
)
from pam.train.tracking import wandb_options
from pam.train.trainer import load_checkpoint

logger = get_logger(__name__)

ADAMW_LR = 1e-3  # PyTorch's default
RATES_OF = ("lr", "lora_lr", "router_lr", "muon_lr")
CURVES = ("loss", "acc", "ctc", "router_acc", "exit_")  # statistics of ESPnet's reporter to keep


@dataclass(frozen=True)
class Length:
    """Length of a phase: number of epochs, batches per epoch, and batches of all epochs.

    An epoch is ESPnet's: it ends with a checkpoint. The last one may be shorter. Both numbers of
    batches are multiples of `accum_grad`.
    """

    epochs: int
    per_epoch: int
    total: int


def length_of(config: Mapping[str, Any], phase: str, train: Path) -> Length:
    """The length of a phase that trains on `train`."""
    budget, accum_grad = config["budget_conf"], config["accum_grad"]
    if phase == "ctc":
        return whole_epochs(budget["ctc_steps"], budget, accum_grad)
    return equal_epochs(steps_of(budget, lambda: phase_batches(config, train)), budget, accum_grad)


def phase_batches(config: Mapping[str, Any], train: Path) -> list[TaskBatches]:
    """The batches of each task for the training through the LLM."""
    utt2task = phase_utt2task(train, config, "llm")
    whole = limits(config, config.get("gpus", 1))
    options = {"seed": config["seed"], "jitter": length_jitter(config)}
    return batches_by_task(utt2task, read_lengths(train), **whole, **options)


def steps_of(budget: Mapping[str, Any], tasks: Callable[[], Sequence[TaskBatches]]) -> int:
    """Training steps of a budget. A step is one batch.

    The budget gives `steps`, or `epochs`, which are passes over the data (`steps_of_passes`).
    """
    return budget["steps"] if "steps" in budget else steps_of_passes(tasks(), budget["epochs"])


def updates_of(steps: int, budget: Mapping[str, Any], accum_grad: int) -> int:
    """The largest number of updates in an epoch. PamError if that is zero."""
    longest = min(steps, budget["steps_per_epoch"])
    if accum_grad > longest:
        raise PamError(
            f"accum_grad: {accum_grad} batches make an update, but an epoch has only {longest} "
            "(steps and steps_per_epoch of the budget): lower accum_grad or raise these"
        )
    return longest // accum_grad


def equal_epochs(steps: int, budget: Mapping[str, Any], accum_grad: int = 1) -> Length:
    """Epochs of at most `steps_per_epoch`, all of equal length except the last.

    Together they have `steps` batches, rounded up to a whole number of updates.
    """
    longest = updates_of(steps, budget, accum_grad)
    updates = math.ceil(steps / accum_grad)
    epochs = math.ceil(updates / longest)
    return Length(epochs, math.ceil(updates / epochs) * accum_grad, updates * accum_grad)


def whole_epochs(steps: int, budget: Mapping[str, Any], accum_grad: int = 1) -> Length:
    """Whole epochs of `steps_per_epoch`, as near to `steps` as possible.

    This is for the warm-up, whose length need not be exact.
    """
    per_epoch = updates_of(steps, budget, accum_grad) * accum_grad
    epochs = round(steps / per_epoch)
    return Length(epochs, per_epoch, epochs * per_epoch)


def run_phase(
    config: Mapping[str, Any],
    phase: str,
    length: Length,
    exp: Path,
    train: Path,
    dev: Path,
    ngpu: int,
) -> Path:
    """Run or resume one phase; returns the path of its last model (trainable weights only)."""
    folder = exp / ("warmup" if phase == "ctc" else "train")
    done = folder / "last.pth"
    if from_first(done.is_file):
        logger.info("%s is complete: %s", phase, done)
        return done
    checkpoint = folder / "checkpoint.pth"
    if from_first(lambda: resumes(checkpoint, length.epochs)):  # fail before the model is loaded
        require_shared(checkpoint)
    for data in (train, dev):
        training_inputs(data, config)  # fail before the model is loaded if some are missing
    conf = config["phases"][phase]
    options = {
        "pam_config": str(exp / "config.yaml"),
        "phase": phase,
        "train_dir": str(train),
        "dev_dir": str(dev),
        "warm_fusion": warm_fusion(config, phase, exp),
        "output_dir": str(folder),
        "ngpu": min(ngpu, 1),  # of this process
        "unused_parameters": world() > 1,  # a batch has one task: other experts get no gradient
        "seed": config["seed"],
        "num_workers": config["num_workers"],
        "max_epoch": length.epochs,
        "num_iters_per_epoch": length.per_epoch,
        "total_steps": length.total,
        "accum_grad": config["accum_grad"],
        "checkpoint_minutes": config["checkpoint_minutes"],
        "grad_clip": config["grad_clip"],
        "optim": "adamw",
        "optim_conf": scaled(conf, config.get("gpus", 1)),
        "scheduler": "linear_warmup_decay",
        "scheduler_conf": scheduler_conf(conf, length.total // config["accum_grad"]),
        "best_model_criterion": [("valid", name, mode) for name, mode in RANKS.items()],
        "keep_nbest_models": config["keep_nbest_models"],
        "log_interval": config["log_interval"],
        "resume": True,
        "use_tensorboard": True,
        "use_matplotlib": False,
        **wandb_options(config.get("wandb"), f"{exp.name}-{folder.name}"),
    }
    run_task(options)
    from_first(lambda: finish(checkpoint, done))
    return done


def finish(checkpoint: Path, done: Path) -> None:
    """Write the last model. PamError if the dev loss of the last epoch is not finite."""
    trained = load_checkpoint(checkpoint)
    refuse_nonfinite_dev_loss(trained["reporter"]["stats"], checkpoint.parent)
    write_checkpoint(done, trained["model"])


def resumes(checkpoint: Path, epochs: int) -> bool:
    """Whether there is a checkpoint. PamError if training cannot go on from it."""
    if checkpoint.is_file():
        refuse_lost(load_checkpoint(checkpoint), epochs, checkpoint.parent)
    return checkpoint.is_file()


def refuse_lost(trained: Mapping[str, Any], epochs: int, folder: Path) -> None:
    """PamError if a checkpoint has diverged and training cannot go on from it.

    That is so after the last epoch, and if the weights are not finite.
    """
    stats, weights = trained["reporter"]["stats"], trained["model"]
    if max(stats) >= epochs or not all(w.isfinite().all() for w in weights.values()):
        refuse_nonfinite_dev_loss(stats, folder)


def warm_fusion(config: Mapping[str, Any], phase: str, exp: Path) -> str | None:
    """The warm-up that the training through the LLM starts from: its own, or another's."""
    if phase != "llm" or config["warmup"] != "ctc":
        return None
    return str(Path(config.get("warm_from") or exp) / "warmup" / "last.pth")


def scheduler_conf(conf: Mapping[str, Any], total: int) -> dict[str, Any]:
    """The scheduler's options; steps and `total` are in updates.

    Warm-up takes at most a tenth of the run, so that short runs have a plateau. `floor` is the
    lowest rate as a share of the peak.
    """
    floor = {"floor": conf["floor"]} if "floor" in conf else {}
    asked = conf["warmup_steps"]
    steps = min(asked, max(total // 10, 1))
    if steps < asked:
        logger.info("the rate rises for %d of %d updates, not %d: a tenth", steps, total, asked)
    return {"warmup_steps": steps, "total_steps": total, **floor}


def scaled(conf: Mapping[str, Any], gpus: int) -> dict[str, Any]:
    """The options of AdamW for `gpus` batches of one GPU, by the phase's `lr_rule`."""
    factor = {"none": 1.0, "sqrt": math.sqrt(gpus), "linear": gpus}[conf.get("lr_rule", "none")]
    given = {"lr": ADAMW_LR, **conf["optim_conf"]}
    return {key: value * factor if key in RATES_OF else value for key, value in given.items()}


def freeze_config(exp: Path, config: Mapping[str, Any], resumes: bool = False) -> None:
    """Write exp/NAME/config.yaml.

    If an attempt with another configuration ended before its first checkpoint, remove its files.
    `resumes`: the experiment has weights, so nothing is removed.
    """
    import yaml

    text = yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False, allow_unicode=True)
    path = exp / "config.yaml"
    if not resumes and path.is_file() and path.read_text(encoding="utf-8") != text:
        remove_attempt(exp)
    write_text(path, text)


def remove_attempt(exp: Path) -> None:
    """Remove the files of an attempt without a checkpoint: ESPnet's logs and the LLM's template."""
    for phase in ("warmup", "train"):
        shutil.rmtree(exp / phase, ignore_errors=True)
    (exp / TEMPLATE).unlink(missing_ok=True)


def write_curves(exp: Path) -> None:
    """Write exp/NAME/curves.json: statistics per epoch of every phase that has run."""
    curves = []
    for phase, name in (("ctc", "warmup"), ("llm", "train")):
        checkpoint = exp / name / "checkpoint.pth"
        if checkpoint.is_file():
            stats = load_checkpoint(checkpoint)["reporter"]["stats"]
            curves += [curve_point(phase, epoch, stats[epoch]) for epoch in sorted(stats)]
    write_json(exp / "curves.json", curves)


def curve_point(phase: str, epoch: int, stats: Mapping[str, Mapping]) -> dict[str, Any]:
    def plain(values: Mapping) -> dict[str, float]:
        numbers = {k: float(v) for k, v in values.items() if k.startswith(CURVES)}
        return {k: v for k, v in numbers.items() if math.isfinite(v) and k != "loss_scale"}

    return {
        "phase": phase,
        "epoch": epoch,
        "step": int(stats["train"]["total_count"]),
        "train": plain(stats["train"]),
        "dev": plain(stats["valid"]),
        "diverged": flagged(stats["valid"]),
    }
