"""Analyse a trained model: exp/NAME/analysis.json and figures (pam/analysis).

pam analyse --exp exp/NAME --data dump/combined/HASH/dev
"""

import argparse
from dataclasses import fields
from pathlib import Path

from pam.analysis.analyse import Analysis, Options
from pam.device import device_for
from pam.errors import PamError, run_main
from pam.log import get_logger
from pam.report import figures
from pam.report.results import read_results

logger = get_logger(__name__)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exp", type=Path, required=True, help="exp/NAME with model.pth")
    parser.add_argument("--data", type=Path, required=True, help="combined development directory")
    parser.add_argument("--states", type=Path, help="set with the states to compare; default: DATA")
    parser.add_argument(
        "--utts", type=int, default=Options.utts, help="utterances of each task; 0: all"
    )
    parser.add_argument(
        "--frames", type=int, default=Options.frames, help="frames to compare states"
    )
    parser.add_argument(
        "--metric",
        type=Path,
        nargs="*",
        default=[],
        help="also decode and score these sets for each change",
    )
    parser.add_argument(
        "--metric_utts", type=int, default=Options.metric_utts, help="utterances of each task there"
    )
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--ngpu", type=int, default=Options.ngpu, help="0: CPU; 1: the first GPU")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    device_for(args.ngpu)
    for name in ("utts", "frames", "metric_utts"):
        if getattr(args, name) < (0 if name == "utts" else 1):
            raise PamError(f"--{name} {getattr(args, name)}: too few")
    options = Options(**{field.name: getattr(args, field.name) for field in fields(Options)})
    analysis = Analysis(args.exp, args.data, options)
    for part in analysis.parts():
        logger.info("analysing %s", part)
    draw(args.exp)


def draw(exp: Path) -> None:
    from pam.bin.report import can_draw

    for path in figures.draw(exp, read_results(exp, samples=0)) if can_draw() else ():
        logger.info("%s", path)


if __name__ == "__main__":
    run_main(main)
