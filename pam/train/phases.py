"""The phases of an experiment: CTC warm-up (an option), then training through the LLM."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pam.atomic import atomic_path, write_json, write_text
from pam.data.scp import read_table, write_table
from pam.errors import UserError
from pam.log import get_logger
from pam.train.task import data_triples, run_task, warmup_texts
from pam.train.trainer import load_checkpoint

logger = get_logger(__name__)

CURVES = ("loss", "acc", "ctc", "router_acc")  # of what ESPnet's reporter keeps


def steps_of(budget: Mapping[str, Any], batch: Mapping[str, int], utts: int) -> int:
    """Training steps of a budget: `steps`, or `epochs` over `utts` utterances."""
    if "steps" in budget:
        return budget["steps"]
    return math.ceil(budget["epochs"] * utts / batch["max_utts"])


def equal_epochs(steps: int, budget: Mapping[str, Any]) -> tuple[int, int]:
    """Epochs of at most `steps_per_epoch`, and the steps of each: together all of `steps`, and
    fewer more than there are epochs."""
    epochs = math.ceil(steps / budget["steps_per_epoch"])
    return epochs, math.ceil(steps / epochs)


def whole_epochs(steps: int, budget: Mapping[str, Any]) -> tuple[int, int]:
    """So many epochs of `steps_per_epoch` as come nearest to `steps`, and the steps of each: the
    warm-up need not be of an exact length."""
    per_epoch = min(budget["steps_per_epoch"], steps)
    return round(steps / per_epoch), per_epoch


def run_phase(
    config: Mapping[str, Any], phase: str, exp: Path, train: Path, dev: Path, ngpu: int
) -> Path:
    """Run or resume one phase; returns its last model (trainable weights only)."""
    folder = exp / ("warmup" if phase == "ctc" else "train")
    done = folder / "last.pth"
    if done.is_file():
        logger.info("%s is complete: %s", phase, done)
        return done
    conf, budget = config["phases"][phase], config["budget_conf"]
    if phase == "llm":
        utts = len(read_table(train / "utt2task"))
        epochs, per_epoch = equal_epochs(steps_of(budget, config["batch"], utts), budget)
    else:
        epochs, per_epoch = whole_epochs(budget["ctc_steps"], budget)
    options = {
        "pam_config": str(exp / "config.yaml"),
        "phase": phase,
        "train_dir": str(train),
        "dev_dir": str(dev),
        "warm_fusion": str(exp / "warmup" / "last.pth") if uses_warmup(config, phase) else None,
        "output_dir": str(folder),
        "ngpu": ngpu,
        "multiprocessing_distributed": ngpu > 1,  # a process each: DataParallel would cut prompts
        "unused_parameters": ngpu > 1,  # a batch is of one task: other experts have no gradient
        "seed": config["seed"],
        "num_workers": config["num_workers"],
        "max_epoch": epochs,
        "num_iters_per_epoch": per_epoch,
        "accum_grad": config["accum_grad"],
        "grad_clip": config["grad_clip"],
        "optim": "adamw",
        "optim_conf": dict(conf["optim_conf"]),
        "scheduler": "linear_warmup_decay",
        "scheduler_conf": scheduler_conf(conf, epochs * per_epoch // config["accum_grad"]),
        "best_model_criterion": [("valid", "loss", "min")],
        "keep_nbest_models": config["keep_nbest_models"],
        "log_interval": config["log_interval"],
        "resume": True,
        "allow_variable_data_keys": True,  # the encoders of a scale name their own
        "use_tensorboard": True,
        "use_matplotlib": False,
        "train_data_path_and_name_and_type": triples(config, phase, train, folder),
        "valid_data_path_and_name_and_type": triples(config, phase, dev, folder),
    }
    run_task(options)
    with atomic_path(done) as part:
        torch.save(load_checkpoint(folder / "checkpoint.pth")["model"], part)
    return done


def uses_warmup(config: Mapping[str, Any], phase: str) -> bool:
    return phase == "llm" and config["warmup"] == "ctc"


def scheduler_conf(conf: Mapping[str, Any], total: int) -> dict[str, Any]:
    """Warm-up steps, never more than a tenth of the run, so that short runs have a plateau."""
    return {"warmup_steps": min(conf["warmup_steps"], max(total // 10, 1)), "total_steps": total}


def triples(config: Mapping[str, Any], phase: str, data: Path, folder: Path) -> list[tuple]:
    """The dataset's files; the warm-up's targets are written beside its checkpoints."""
    text = data / "text"
    if phase == "ctc":
        text = folder / f"text_{data.name}"
        folder.mkdir(parents=True, exist_ok=True)
        write_table(text, warmup_texts(data, config["warmup_tasks"]))
    return data_triples(data, config, text)


def freeze_config(exp: Path, config: Mapping[str, Any]) -> None:
    """Write exp/NAME/config.yaml; other settings for an existing experiment are an error."""
    import yaml

    text = yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False, allow_unicode=True)
    path = exp / "config.yaml"
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        old = yaml.safe_load(path.read_text(encoding="utf-8"))
        changed = sorted(k for k in config.keys() | old.keys() if config.get(k) != old.get(k))
        raise UserError(
            f"{path}: this experiment was trained with other settings ({', '.join(changed)}): "
            "give another --expname, or remove the folder"
        )
    write_text(path, text)


def write_curves(exp: Path) -> None:
    """exp/NAME/curves.json: statistics per epoch of every phase that has run."""
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
    }
