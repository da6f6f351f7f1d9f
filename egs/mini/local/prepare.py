#!/usr/bin/env python3
"""Make the data directories of the mini recipe from Debian and PyPI packages (see ../README.md).

    python local/prepare.py --out data [--size tiny|short|long] [--seed 0] [--nj N]

The same options give the same bytes; the same command again resumes what was killed.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes, not threads
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # pam and tools, installed or not

from mini_items import SetSummary, write_set  # noqa: E402
from mini_speech import clean_items, render_clean  # noqa: E402

from pam.errors import run_main  # noqa: E402

# Items of train, dev and test; None: all there are.
SIZES = {
    "tiny": {"asr_clean": (24, 8, 8)},
    "short": {"asr_clean": (3000, 100, 200)},
    "long": {"asr_clean": (None, None, None)},
}
SPLITS = ("train", "dev", "test")


def asr_clean(args: argparse.Namespace) -> list[SetSummary]:
    return [
        write_set(
            args.out,
            f"asr_clean_{split}",
            "asr_clean",
            clean_items(split, count, args.max_seconds, args.seed),
            render_clean,
            args.nj,
        )
        for split, count in zip(SPLITS, SIZES[args.size]["asr_clean"], strict=True)
    ]


CORPORA = {"asr_clean": asr_clean}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the data directories")
    parser.add_argument("--size", choices=SIZES, default="short")
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max_seconds", type=float, default=8.0, help="longest speech, up to 20")
    parser.add_argument("--nj", type=int, default=min(4, os.cpu_count() or 1))
    args = parser.parse_args(argv)
    summaries = [summary for corpus in args.corpora for summary in CORPORA[corpus](args)]
    print_summary(summaries)


def print_summary(summaries: list[SetSummary]) -> None:
    print(f"{'set':<20} {'items':>6} {'hours':>7} {'speakers':>8}")
    for row in summaries:
        print(f"{row.name:<20} {row.items:>6} {row.hours:>7.3f} {row.speakers:>8}")
    print(
        f"{'all':<20} {sum(r.items for r in summaries):>6} {sum(r.hours for r in summaries):>7.3f}"
    )


if __name__ == "__main__":
    run_main(main)
