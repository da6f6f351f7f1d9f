"""Stage 5: select or average checkpoints into exp/NAME/model.pth; test that it uses the audio."""

import argparse
import json
from pathlib import Path

from pam.atomic import write_json
from pam.config import load_yaml
from pam.config.made import PENDING, Making, add_pending, read_record, record_digest
from pam.data.digests import LEARNED, data_digest
from pam.device import device_for
from pam.errors import UserError, run_main
from pam.log import get_logger

STAGE = "average"
logger = get_logger(__name__)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="exp/NAME")
    parser.add_argument("--dev", type=Path, required=True, help="combined development directory")
    parser.add_argument(
        "--method",
        choices=["last", "best"],
        default="last",
        help="last epochs (section A.6) or best by dev loss",
    )
    parser.add_argument("--num", type=int, default=1, help="number of checkpoints to average")
    parser.add_argument("--ngpu", type=int, default=0, help="0: CPU; 1: the first GPU")
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
    making = making_of(args)
    if making.is_complete():
        logger.info("complete: %s", args.exp / "model.pth")
        return 0
    if args.pending:
        return PENDING
    with making.work():
        work(args)
    return 0


def work(args: argparse.Namespace) -> None:
    from pam.checkpoint import write_checkpoint
    from pam.model.build import load_experiment
    from pam.train.checkpoint import average, choose
    from pam.train.hearing import measure_hearing

    device = device_for(args.ngpu)
    if not (args.exp / "curves.json").is_file():
        raise UserError(f"{args.exp} is not trained: run stage 4 first")
    chosen = choose(args.exp / "train", args.method, args.num, dev_losses(args.exp))
    logger.info("model.pth: mean of %s", ", ".join(path.name for path in chosen))
    write_checkpoint(args.exp / "model.pth", average(chosen))
    config = load_yaml(args.exp / "config.yaml")
    model = load_experiment(args.exp, online=config["feats"] == "online")
    model.to(device=device)
    hearing = measure_hearing(model, config, args.dev)
    for task, row in hearing.items():
        logger.info("%s: dev loss %.3f, shuffled audio %.3f", task, *list(row.values())[:2])
    write_json(args.exp / "hearing.json", hearing)


if __name__ == "__main__":
    run_main(main)
