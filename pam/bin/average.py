"""Stage 5: select or average checkpoints into exp/NAME/model.pth; test that it uses the audio.

pam average --exp exp/NAME --dev dump/combined/HASH/dev --method best --num 2
"""

import argparse
import json
from contextlib import nullcontext
from pathlib import Path

from pam.atomic import write_json
from pam.config import load_yaml
from pam.config.made import Making, add_pending, read_record, record_digest
from pam.data.digests import LEARNED, data_digest
from pam.device import device_for
from pam.errors import PamError, run_main
from pam.log import get_logger
from pam.train.processes import add_machines, from_first, is_first, require_shared, run

STAGE = "average"
logger = get_logger(__name__)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exp", type=Path, required=True, help="exp/NAME")
    parser.add_argument("--dev", type=Path, required=True, help="combined development directory")
    parser.add_argument(
        "--method",
        choices=["last", "best"],
        default="last",
        help="last epochs (section A.6) or best by dev loss",
    )
    parser.add_argument("--num", type=int, default=1, help="number of checkpoints to average")
    add_machines(parser)
    add_pending(parser)
    return parser


def making_of(args: argparse.Namespace) -> Making:
    trained = read_record(args.exp, "train")
    return Making(
        args.exp,
        STAGE,
        {"method": args.method, "num": args.num},
        {"training": record_digest(trained), "dev": data_digest(args.dev, LEARNED)},
        products=[args.exp / "model.pth", args.exp / "hearing.json"],
        after=[trained],
    )


def dev_losses(exp: Path) -> dict[int, float]:
    """Dev loss of each epoch of the training through the LLM, except epochs that diverged."""
    curves = json.loads((exp / "curves.json").read_text(encoding="utf-8"))
    losses = {}
    for point in (point for point in curves if point["phase"] == "llm"):
        if "loss" not in point["dev"] or point.get("diverged"):
            tasks = ", ".join(point.get("diverged") or ["all tasks"])
            logger.warning(
                "epoch %d is left out: its dev loss of %s is not finite", point["epoch"], tasks
            )
        else:
            losses[point["epoch"]] = point["dev"]["loss"]
    return losses


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    if not args.pending:
        device_for(args.ngpu)
    return run(STAGE, args, argv, lambda: pending(args), lambda making: work(args, making))


def pending(args: argparse.Namespace) -> Making | None:
    """The record of the work to do; None if it is complete."""
    making = making_of(args)
    if not making.is_complete():
        return making
    logger.info("complete: %s", args.exp / "model.pth")
    return None


def work(args: argparse.Namespace, making: Making) -> None:
    from pam.model.build import load_experiment
    from pam.train.hearing import measure_hearing

    with making.work() if is_first() else nullcontext():
        from_first(lambda: write_model(args))
        require_shared(args.exp / "model.pth")
        config = load_yaml(args.exp / "config.yaml")
        model = load_experiment(args.exp, online=config["feats"] == "online")
        model.to(device=device_for(args.ngpu))
        hearing = measure_hearing(model, config, args.dev)
        for task, row in hearing.items():
            logger.info("%s: dev loss %.3f, shuffled audio %.3f", task, *list(row.values())[:2])
        from_first(lambda: write_json(args.exp / "hearing.json", hearing))


def write_model(args: argparse.Namespace) -> None:
    """Write exp/NAME/model.pth from the chosen checkpoints."""
    from pam.checkpoint import write_checkpoint
    from pam.train.checkpoint import average, choose

    if not (args.exp / "curves.json").is_file():
        raise PamError(f"{args.exp} is not trained: run stage 4 first")
    chosen = choose(args.exp / "train", args.method, args.num, dev_losses(args.exp))
    logger.info("model.pth: mean of %s", ", ".join(path.name for path in chosen))
    write_checkpoint(args.exp / "model.pth", average(chosen))


if __name__ == "__main__":
    run_main(main)
