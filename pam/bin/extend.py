"""Add an encoder, a task or an exit gate to a trained model; measure the loss on the old tasks.

    pam extend --exp exp/OLD --out exp/NEW --add_encoder whisper_base \\
        --scale_config conf/scale/mine.yaml           describes the encoder under `encoders:`
    pam extend --exp exp/OLD --out exp/NEW --add_task music --prompts music.yaml
    pam extend --exp exp/OLD --out exp/NEW --add_exit_gate 1     at every layer
    pam train --init exp/NEW …          continues the training
    pam extend --compare exp/OLD exp/TRAINED      two experiments with results.json
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pam.atomic import write_text
from pam.config import load_yaml
from pam.data.prompts import load_all_prompts
from pam.data.tasks import forget_tasks, get_task, prompt_files
from pam.errors import PamError, run_main
from pam.log import get_logger
from pam.paths import CONF
from pam.registry import nearest
from pam.report.markdown import GAP, escape, number, table
from pam.report.tables import interval
from pam.report.units import metric_label
from pam.score.clusters import doubt
from pam.score.metric import metric_called
from pam.score.router import SCORED_SPLITS

HOME = CONF / "prompts"
logger = get_logger(__name__)
RESULTS = "results.json"


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--add_encoder", metavar="NAME")
    what.add_argument("--add_task", metavar="NAME", help="a task of pam/data/tasks.py")
    what.add_argument(
        "--add_exit_gate",
        type=int,
        metavar="STRIDE",
        help="a gate at every STRIDE-th layer of the LLM (pam/model/exits.py)",
    )
    what.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"))
    parser.add_argument("--exp", type=Path, help="exp/OLD with config.yaml and model.pth")
    parser.add_argument("--out", type=Path, help="exp/NEW, the new experiment")
    parser.add_argument(
        "--scale_config", help="file that describes the new encoder under `encoders:`"
    )
    parser.add_argument("--prompts", type=Path, help="prompts of the new task (conf/prompts)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the new encoder's adapter")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    if args.compare:
        print(comparison(*(read_results(path) for path in args.compare)))
        return
    needed = {args.add_encoder: "scale_config", args.add_task: "prompts"}
    require(args, "exp", "out", *(option for what, option in needed.items() if what))
    if (args.out / "config.yaml").exists() or args.out.resolve() == args.exp.resolve():
        raise PamError(f"--out {args.out}: this experiment exists already: give another name")
    from pam.model.extend import add_encoder, add_exit_gate, add_task, read_trained

    config, state = read_trained(args.exp)
    if args.add_encoder:
        spec = encoder_spec(args.scale_config, args.add_encoder)
        config, state = add_encoder(config, state, args.add_encoder, spec, args.seed)
    elif args.add_exit_gate is not None:
        if args.add_exit_gate < 1:
            raise PamError(f"--add_exit_gate {args.add_exit_gate}: expected 1 or more")
        config, state = add_exit_gate(config, state, args.add_exit_gate)
    else:
        config, state = add_task(config, state, args.add_task)
        install_prompts(args.add_task, args.prompts, config["tasks"])
    write_experiment(args.out, config | {"extended_from": str(args.exp)}, state)
    logger.info("%s: continue with pam.bin.train --init %s", args.out, args.out)


def require(args: argparse.Namespace, *names: str) -> None:
    if lacking := [name for name in names if getattr(args, name) is None]:
        raise PamError(f"--{lacking[0]} is missing: see --help")


def encoder_spec(file: str, name: str) -> dict[str, Any]:
    encoders = load_yaml(file).get("encoders") or {}
    if name not in encoders:
        raise PamError(f"{file}: no encoder {name!r}: {nearest(name, encoders)}")
    return encoders[name]


def install_prompts(task: str, file: Path, tasks: list[str]) -> None:
    """Copy the prompts to conf/prompts/TASK.yaml, unless a recipe has them.

    The file of a new task also has `metric:` and `description:` (pam/data/tasks.py).
    """
    if not file.is_file():
        raise PamError(f"--prompts {file}: no such file")
    text, known = file.read_text(encoding="utf-8"), prompt_files().get(task)
    if known and known.read_text(encoding="utf-8") != text:
        raise PamError(f"--prompts {file}: {known} has other prompts: remove it, or give that file")
    home = known or HOME / f"{task}.yaml"
    write_text(home, text)
    forget_tasks()
    try:
        get_task(task)
        load_all_prompts(tasks)
    except PamError:
        if not known:
            home.unlink()
            forget_tasks()
        raise


def write_experiment(out: Path, config: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write exp/NEW: model.pth, then config.yaml, which marks it as complete."""
    import yaml

    from pam.checkpoint import write_checkpoint

    write_checkpoint(out / "model.pth", dict(state))
    write_text(out / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))


def read_results(path: Path) -> dict[str, Any]:
    file = path / RESULTS if path.is_dir() else path
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PamError(f"{file}: cannot be read ({error}): run stage 8 of the recipe") from error
    if "sets" not in value:
        raise PamError(f"{file}: no 'sets' in it: it is not the report of an experiment")
    return value


def comparison(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """A table with a row for every set of the old experiment, and the accuracy of routing."""
    rows = []
    for name, before in old["sets"].items():
        after = new["sets"].get(name)
        metric = escape(metric_label(before["metric"]))
        rows.append([escape(name), escape(before["task"]), metric, *change(before, after)])
    for split in SCORED_SPLITS:
        routed = [(r["router"] or {}).get(split) for r in (old, new)]
        if routed[0]:
            before, after = (
                {"metric": "accuracy", "value": r["accuracy"]} if r else None for r in routed
            )
            rows.append([f"{split} prompts", "all", "routing accuracy %", *change(before, after)])
    return table(["set", "task", "metric", "before:", "after:", "lost:"], rows)


def change(before: Mapping[str, Any], after: Mapping[str, Any] | None) -> list[str]:
    """Values before and after with their intervals, and the loss (negative: a gain)."""
    if after is None:
        return [shown(before), GAP, f"{GAP}, not measured"]
    lost = before["value"] - after["value"]
    if not metric_called(before["metric"]).higher_is_better:
        lost = -lost
    return [shown(before), shown(after), number(lost)]


def shown(score: Mapping[str, Any]) -> str:
    proof = f" ({interval(score)}{doubt(score)})" if score.get("ci95") else ""
    return number(score["value"]) + proof


if __name__ == "__main__":
    run_main(main)
