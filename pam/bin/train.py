"""Stage 4: train one system: the CTC warm-up, if it is on, then the training through the LLM.

    pam train --scale_config conf/scale/mini.yaml --system_config conf/systems/pam.yaml \\
        --train dump/combined/HASH/train --dev dump/combined/HASH/dev --expdir exp/NAME
"""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pam.atomic import write_json
from pam.config import (
    DECODING,
    MEMORY,
    PARTS,
    RUNNING,
    Experiment,
    check_budget,
    check_parts,
    check_phases,
    compose,
    load_yaml,
    plain,
    read_layers,
    require,
    scale_hash,
)
from pam.config.made import (
    Making,
    add_pending,
    file_digest,
    read_record,
    settings_of,
)
from pam.data.digests import LEARNED, data_digest, training_prompts_digest
from pam.data.prompts import prompts_of
from pam.data.scp import read_text_file
from pam.data.tasks import get_task
from pam.device import device_for, gpus_seen
from pam.errors import PamError, run_main
from pam.lock import alone
from pam.log import get_logger
from pam.registry import nearest
from pam.train.processes import (
    add_machines,
    from_first,
    is_first,
    processes_of,
    require_shared,
    run,
    world,
)
from pam.train.systems import effective

OPTIONS = ("feats", "warmup")  # keys of a scale that are also options of the command line
GIVEN = (*OPTIONS, "init", "warm_from")  # settings of the command line alone
STAGE = "train"
REMEDY = "choose another name with --expname, or remove the folder"
NO_RESULT = (*RUNNING, *DECODING, "budgets")  # these keys change no training
NEEDED = ("llm_conf", "fusion", "feats", "warmup", "batch", "phases", "budgets")
OF_MODEL = (*PARTS, "fusions", "use_encoders", "stand_ins")  # what files say of a model


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale_config", required=True, help="conf/scale/NAME.yaml")
    parser.add_argument("--system_config", required=True, help="conf/systems/NAME.yaml")
    parser.add_argument("--llm_config", help="conf/llm/NAME.yaml; default: the scale's LLM")
    parser.add_argument(
        "--init",
        type=Path,
        help="exp/NAME to start from, with its encoders, LLM, fusion and weights",
    )
    parser.add_argument(
        "--warm_from", type=Path, help="exp/NAME whose finished CTC warm-up replaces an own one"
    )
    parser.add_argument("--train", type=Path, required=True, help="combined training directory")
    parser.add_argument("--dev", type=Path, required=True, help="combined development directory")
    parser.add_argument("--expdir", type=Path, required=True, help="exp/NAME")
    parser.add_argument("--budget", default="short", help="a budget of the scale's configuration")
    parser.add_argument("--feats", choices=["dumped", "online"], help="default: the scale's")
    parser.add_argument("--warmup", choices=["ctc", "none"], help="default: the scale's")
    parser.add_argument("--seed", type=int, default=0)
    add_machines(parser)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. fusion_conf.rank=64"
    )
    add_pending(parser)
    return parser


def making_of(args: argparse.Namespace) -> Making:
    """The record of exp/NAME: settings of its data, and the configuration from files and command
    line."""
    combined = read_record(args.train.parent, "combine")
    conf = plain(experiment_of(args))
    require(conf, NEEDED, args.scale_config)
    require(conf["batch"], ("max_utts", "max_frames"), f"{args.scale_config}: batch")
    budget = conf["budgets"].get(args.budget)
    names = {
        "scale": Path(args.scale_config).stem,
        "system": Path(args.system_config).stem,
        **({"llm": Path(args.llm_config).stem} if args.llm_config else {}),
    }
    given = {key: getattr(args, key) for key in GIVEN if getattr(args, key)}
    return Making(
        args.expdir,
        STAGE,
        {
            **settings_of(combined),
            **names,
            "seed": args.seed,
            "budget": args.budget,
            "budget_conf": budget,
            "use_encoders": list(conf["encoders"]),  # the dump may have more
            **{key: value for key, value in conf.items() if key not in NO_RESULT},
            "llm_conf": without_memory(conf["llm_conf"]),
            **{key: str(value) for key, value in given.items()},
            **gpus_of(args, conf["batch"]),
        },
        {
            "train": data_digest(args.train, LEARNED),
            "dev": data_digest(args.dev, LEARNED),
            "prompts": prompts_of_data(args.train, conf.get("plain_prompts", True)),
            "init": args.init and file_digest(args.init / "model.pth"),
            "warm_from": args.warm_from and file_digest(args.warm_from / "warmup" / "last.pth"),
        },
        notes={"set": args.set, "scale_hash": scale_hash(Path(args.scale_config))},
        begun=has_weights(args.expdir),
        remedy=REMEDY,
        keeps_inputs=True,
        after=[combined],
    )


def gpus_of(args: argparse.Namespace, batch: Mapping[str, Any]) -> dict[str, int]:
    """{"gpus": N} if the batch, and so the result, depends on the number of GPUs.

    PamError if an unfinished training has another number. A complete one keeps its own: later
    stages need fewer GPUs.
    """
    if batch.get("per") != "gpu":
        return {}
    now = processes_of(args) // args.nj
    record = read_record(args.expdir, STAGE) or {"complete": False, "settings": {}}
    before = record["settings"].get("gpus", now)
    if before == now or record["complete"]:
        return {"gpus": before}
    if has_weights(args.expdir):
        raise PamError(
            f"{args.expdir}: it was begun on {before} GPUs, each with a batch of its own "
            f"(batch.per: gpu), not on {now}: give --ngpu and --num_nodes for {before}, or another "
            "--expname"
        )
    return {"gpus": now}


def begun_from(args: argparse.Namespace) -> bool:
    """Whether the experiment was begun from these weights; once complete it needs them no more."""
    settings = (read_record(args.expdir, STAGE) or {"settings": {}})["settings"]
    starts = {key: getattr(args, key) for key in ("init", "warm_from")}
    return all(settings.get(key) == str(exp) for key, exp in starts.items() if exp)


def check_start(args: argparse.Namespace) -> None:
    """`PamError` if the weights that a training starts from are not there."""
    if args.init and not (args.init / "model.pth").is_file():
        raise PamError(
            f"--init {args.init}: there is no model.pth: train it, or use pam.bin.extend"
        )
    if args.warm_from and not (args.warm_from / "warmup" / "last.pth").is_file():
        raise PamError(
            f"--warm_from {args.warm_from}: there is no finished warm-up, warmup/last.pth"
        )


def prompts_of_data(train: Path, plain_prompts: bool) -> str | None:
    """A digest of the training prompts; None if the data no longer exist."""
    if not (train / "utt2task").is_file():
        return None
    prompts = prompts_of({"plain_prompts": plain_prompts}, tasks_of(train))
    return training_prompts_digest(prompts)


def has_weights(exp: Path) -> bool:
    """Whether there is a model, or a checkpoint of a phase. Until then settings may change."""
    return any(exp.glob("*.pth")) or any(exp.glob("*/*.pth"))


def experiment_of(args: argparse.Namespace) -> Experiment:
    """The system at its scale, with the options of --set. With --init the old experiment's model is
    in the place of the files' model; all else is as the files say."""
    scale, system = read_layers(args.scale_config, args.system_config, args.llm_config)
    if args.init is None:
        return compose(scale, system, args.set)
    start = read_init(args)
    fusion = system.get("fusion", scale.get("fusion"))
    if fusion not in (None, start["fusion"]):
        raise PamError(
            f"{args.system_config}: fusion: {fusion}, but the model of --init {args.init} has "
            f"{start['fusion']}: name a system with this fusion"
        )
    known = scale.get("encoders", {})
    scale, system = (
        {key: value for key, value in layer.items() if key not in {*OF_MODEL, *start}}
        for layer in (scale, system)
    )
    return compose(scale, system | start, args.set, known)


def read_init(args: argparse.Namespace) -> dict:
    """The part of the old experiment's configuration that describes its model, and what of it is
    trained. Where that is gone, an experiment that has begun has it in its own."""
    files = [exp / "config.yaml" for exp in (args.init, args.expdir)]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        check_start(args)
        raise PamError(f"--init {args.init}: there is no config.yaml beside model.pth")
    config = load_yaml(file)
    check_parts(config, str(file))
    return {key: config[key] for key in (*PARTS, "trainable") if key in config}


def effective_config(args: argparse.Namespace) -> dict:
    """The merged configuration, with the options of the command line and the chosen budget."""
    for assignment in args.set:
        if (key := assignment.partition("=")[0]) in OPTIONS:  # else it would win silently
            raise PamError(f"--set {assignment}: give it as the option --{key}")
    experiment = experiment_of(args)
    config = effective(experiment, tasks_of(args.train))
    for key in ("feats", "warmup"):
        config[key] = getattr(args, key) or config[key]
    if args.init:
        config |= {"warmup": "none", "init": str(args.init)}
    own_warmup = possible_warmup(config, args)  # "none" with --warm_from
    config["warmup"] = own_warmup
    if args.warm_from:
        config |= {"warmup": "ctc", "warm_from": str(args.warm_from)}
    del config["budgets"]
    config.pop("wandb", None)  # of the user, not of the experiment
    if args.budget not in experiment.budgets:
        raise PamError(f"--budget {args.budget!r}: {nearest(args.budget, experiment.budgets)}")
    config |= gpus_of(args, config["batch"])
    budget = experiment.budgets[args.budget]
    check_budget(budget, args.budget, own_warmup)
    check_phases(experiment.phases, own_warmup, config["batch"].get("per") == "gpu")
    names = {"scale": Path(args.scale_config).stem, "system": Path(args.system_config).stem}
    chosen = {"seed": args.seed, "budget": args.budget, "budget_conf": plain(budget)}
    return names | chosen | config


def possible_warmup(config: Mapping[str, Any], args: argparse.Namespace) -> str:
    """The warm-up of this experiment's own: `warmup`, or "none" if the data have no text for it, or
    with --warm_from.

    PamError if the command line requests the warm-up without text.
    """
    if config["warmup"] != "ctc" or args.warm_from:
        return "none"
    folder = without_warmup(config["warmup_tasks"], args.train, args.dev)
    if folder is None:
        return "ctc"
    names = ", ".join(config["warmup_tasks"]) or "none"
    why = f"{folder} has no text of the tasks of warmup_tasks ({names})"
    if args.warmup == "ctc":
        raise PamError(f"--warmup ctc: {why}: give --warmup none, or other tasks")
    get_logger(__name__).info("the CTC warm-up is skipped: %s", why)
    return "none"


def without_warmup(tasks: Sequence[str], train: Path, dev: Path) -> Path | None:
    """The first of the two folders that has no text of any of these tasks; None if both have some.

    ESPnet trains on `train` and validates on `dev`, so it needs both.
    """
    from pam.train.task import warmup_texts

    return next((f for f in (train, dev) if not any(warmup_texts(f, tasks).values())), None)


def tasks_of(folder: Path) -> list[str]:
    """The tasks of a combined directory, one expert each, in the order of all tasks."""
    found = set(read_text_file(folder / "utt2task").values())
    return sorted(found, key=lambda name: get_task(name).expert)


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    if not args.pending:
        device_for(args.ngpu)
    if not 0 <= args.seed < 2**32:
        raise PamError(f"--seed {args.seed}: expected 0 to {2**32 - 1}")
    if args.init and args.warmup == "ctc":
        raise PamError("--warmup ctc: the model of --init needs no warm-up: leave --warmup out")
    if args.warm_from and (args.init or args.warmup == "none"):
        other = "--init" if args.init else "--warmup none"
        raise PamError(f"--warm_from: there is no warm-up with {other}: leave out one of them")
    if args.init and args.llm_config:
        raise PamError("--llm_config: the model of --init has its LLM: leave out one of them")
    return run(STAGE, args, argv, lambda: pending(args), lambda making: work(args, making))


def pending(args: argparse.Namespace) -> Making | None:
    """The record of the work to do; None if it is complete."""
    if not begun_from(args):
        check_start(args)
    making = making_of(args)
    if making.is_complete():
        get_logger(__name__).info("complete: %s", args.expdir)
        return None
    check_start(args)
    if not (args.train / "wav.scp").is_file() and args.pending:
        raise PamError(f"{args.train} is not complete: run stage 3 first")
    return making


def work(args: argparse.Namespace, making: Making) -> None:
    """Train or resume. A training that has weights keeps its configuration, except `RUNNING` and
    `MEMORY`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from pam.data.longest import record_longest
    from pam.environment import environment
    from pam.train.memory import write_peak
    from pam.train.phases import freeze_config, length_of, run_phase, write_curves

    if is_first() and not args.ngpu and (seen := gpus_seen()):
        get_logger(__name__).warning("%d GPUs are here, but --ngpu 0 trains on the CPU", seen)
    config = from_first(lambda: configuration(args, making))
    given = plain(experiment_of(args))
    running = config | {key: given[key] for key in RUNNING if key in given}
    own_warmup = config["warmup"] == "ctc" and not config.get("warm_from")
    phases = ["ctc", "llm"] if own_warmup else ["llm"]
    lengths = {phase: length_of(config, phase, args.train) for phase in phases}

    def begin() -> None:
        freeze_config(args.expdir, config, is_frozen(making))
        record_longest(args.expdir, args.train)

    def end() -> None:
        write_curves(args.expdir)
        write_json(args.expdir / "environment.json", {**environment(), "commit": making.commit})
        write_peak(args.expdir, world() if args.ngpu else 0)

    with writing_alone(making) if is_first() else nullcontext():
        from_first(begin)
        require_shared(args.expdir / "config.yaml")
        for phase, length in lengths.items():
            run_phase(running, phase, length, args.expdir, args.train, args.dev, args.ngpu)
        from_first(end)
    if is_first():
        get_logger(__name__).info("trained: %s", args.expdir / "train" / "last.pth")


@contextmanager
def writing_alone(making: Making) -> Iterator[None]:
    """Context of the work of the first process: another training in the same folder is refused."""
    with alone(making.folder, "training"), making.work():
        yield


def configuration(args: argparse.Namespace, making: Making) -> dict:
    """That of the command line; of an experiment with weights its own, with the given `MEMORY`."""
    if not is_frozen(making):
        return effective_config(args)
    kept = load_yaml(args.expdir / "config.yaml")
    given = experiment_of(args).llm_conf
    memory = {key: value for key, value in given.items() if key in MEMORY}
    return kept | {"llm_conf": without_memory(kept["llm_conf"]) | memory}


def is_frozen(making: Making) -> bool:
    return making.resumes() and making.begun


def without_memory(llm_conf: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in llm_conf.items() if key not in MEMORY}


if __name__ == "__main__":
    run_main(main)
