#!/usr/bin/env python3
"""Measure the padding of training batches, which needs no training step.

    tools/bench_padding.py --exp exp/NAME [--train DIR] [--steps 520] [--set KEY=VALUE …]

It makes the first `--steps` batches of the training through the LLM, with the experiment's
configuration, changed by `--set`, on the combined directory `--train` (default: the one below
dump/combined). The columns are the shares of padding that training prints; their words are in
egs/multitask/README.md.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # pam, installed or not

from bench_train import NOW, Worker, configuration  # noqa: E402

from pam.errors import PamError, run_main  # noqa: E402
from pam.train.speed import PADDED, counts_of, rates_of  # noqa: E402


def shares(args: argparse.Namespace) -> dict[str, float]:
    """The padding of one configuration."""
    with tempfile.TemporaryDirectory() as folder:
        configuration(args, Path(folder))
        own = {"exp": Path(folder), "rounds": 1, "weights": None, "worker": NOW}
        worker, found = Worker(argparse.Namespace(**{**vars(args), **own})), Counter()
        for _ in range(args.steps):
            _, batch = next(worker.batches)
            found.update(counts_of(batch, worker.model))
    return rates_of(found | Counter(batches=args.steps, seconds=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exp", type=Path, required=True)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=520)
    args = parser.parse_args()
    args.random_llm = None
    args.train = args.train or next(Path("dump/combined").glob("*/train"), None)
    if args.train is None:
        raise PamError("dump/combined: no training data: run stage 3, or give --train")
    print(f"| configuration | {' | '.join(PADDED)} |")
    print(f"|---|{'---|' * len(PADDED)}")
    found = shares(args)
    values = " | ".join(f"{100 * found[f'{name}_padding']:.1f} %" for name in PADDED)
    print(f"| {' '.join(args.set) or 'as trained'} | {values} |")


if __name__ == "__main__":
    run_main(main)
