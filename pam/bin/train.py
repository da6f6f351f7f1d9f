"""Stage 4: train one system (CTC warm-up where it is on, then training through the LLM)."""

import argparse
import os
from pathlib import Path

from pam.config import check_keys, load_yaml, merge, set_option
from pam.data.scp import read_table
from pam.data.tasks import get_task
from pam.errors import UserError, run_main
from pam.log import get_logger
from pam.table import nearest

KEYS = [
    "encoders",
    "llm_conf",
    "fusion",
    "fusion_conf",
    "router_conf",
    "tasks",
    "model_conf",
    "feats",
    "warmup",
    "warmup_tasks",
    "batch",
    "prompts_per_batch",
    "dev_utts",
    "num_workers",
    "accum_grad",
    "grad_clip",
    "keep_nbest_models",
    "log_interval",
    "phases",
    "budgets",
]

DEFAULTS = {
    "fusion_conf": {},
    "router_conf": {},
    "model_conf": {},
    "tasks": None,
    "warmup_tasks": ["asr_clean", "asr_noisy"],
    "prompts_per_batch": 0,
    "dev_utts": 0,
    "num_workers": 0,
    "accum_grad": 1,
    "grad_clip": 1.0,
    "keep_nbest_models": 1,
    "log_interval": 50,
}


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale_config", required=True, help="conf/scale/NAME.yaml")
    parser.add_argument("--system_config", required=True, help="conf/systems/NAME.yaml")
    parser.add_argument("--train", type=Path, required=True, help="combined training directory")
    parser.add_argument("--dev", type=Path, required=True, help="combined development directory")
    parser.add_argument("--expdir", type=Path, required=True, help="exp/NAME")
    parser.add_argument("--budget", default="short", help="a budget of the scale's configuration")
    parser.add_argument("--feats", choices=["dumped", "online"], help="else the scale's own")
    parser.add_argument("--warmup", choices=["ctc", "none"], help="else the scale's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ngpu", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. fusion_conf.rank=64"
    )
    return parser


def effective_config(args: argparse.Namespace) -> dict:
    """Defaults < scale < system < command line, with the chosen budget."""
    scale, system = load_yaml(args.scale_config), load_yaml(args.system_config)
    check_keys(scale, KEYS, args.scale_config)
    check_keys(system, KEYS, args.system_config)
    config = merge(DEFAULTS, scale, system)
    for assignment in args.set:
        set_option(config, assignment)
    check_keys(config, KEYS, "--set")
    config["tasks"] = config["tasks"] or tasks_of(args.train)
    for key in ("feats", "warmup"):
        config[key] = getattr(args, key) or config[key]
    budgets = config.pop("budgets")
    if args.budget not in budgets:
        raise UserError(f"--budget {args.budget!r}: {nearest(args.budget, budgets)}")
    names = {"scale": Path(args.scale_config).stem, "system": Path(args.system_config).stem}
    chosen = {"seed": args.seed, "budget": args.budget, "budget_conf": budgets[args.budget]}
    return names | chosen | config


def tasks_of(folder: Path) -> list[str]:
    """The tasks of a combined directory, one expert each, in the order of all tasks."""
    found = set(read_table(folder / "utt2task").values())
    return sorted(found, key=lambda name: get_task(name).expert)


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    config = effective_config(args)
    from pam.train.phases import freeze_config, run_phase, write_curves

    freeze_config(args.expdir, config)
    for phase in ("ctc", "llm"):
        if phase == "llm" or config["warmup"] == "ctc":
            run_phase(config, phase, args.expdir, args.train, args.dev, args.ngpu)
    write_curves(args.expdir)
    get_logger(__name__).info("trained: %s", args.expdir / "train" / "last.pth")


if __name__ == "__main__":
    run_main(main)
