#!/usr/bin/env python3
"""Time stages of a recipe, alone and beside a program that keeps one core busy.

    tools/bench_busy.py [--recipe mini] [--config conf/tiny.conf] [--stages 2 4 6]
                        [--settings "train_nj=1" "train_nj=2" …] [--limit 1200]

Prints the seconds of each stage for each setting (options of the recipe), alone and beside the
other program, and their ratio. A training of one process has a thread for each core. A stage is
stopped after `--limit` seconds. All data is in a temporary folder.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ("train_nj=1", "train_nj=2")
MADE = {2: "dump", 4: "exp", 6: "exp/*/greedy_*"}  # what to remove before the stage runs again


@contextmanager
def busy() -> Iterator[None]:
    """One process that computes all the time."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


class Recipe:
    def __init__(self, name: str, config: str, work: Path):
        self.folder, self.config, self.work = ROOT / "egs" / name, config, work

    def run(self, first: int, last: int, setting: str, limit: float | None = None) -> float | None:
        """Seconds of these stages; None where they took longer than `limit`."""
        places = [f"--{kind}dir={self.work / kind}" for kind in ("data", "dump", "exp")]
        stages = ["--stage", str(first), "--stop_stage", str(last)]
        options = [f"--{option}" for option in setting.split()]
        command = ["./run.sh", "--config", self.config, *options, *places, *stages]
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.terminate()  # run.sh ends its jobs
            process.wait()
            return None
        if status:
            raise SystemExit(f"stages {first} to {last} failed: see the messages above")
        return time.monotonic() - start

    def remove(self, stage: int) -> None:
        for folder in self.work.glob(MADE[stage]):
            shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--config", default="conf/tiny.conf")
    parser.add_argument("--stages", type=int, nargs="+", choices=sorted(MADE), default=sorted(MADE))
    parser.add_argument("--settings", nargs="+", metavar="'NAME=VALUE …'", default=SETTINGS)
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds of one stage")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        recipe = Recipe(args.recipe, args.config, Path(work))
        recipe.run(1, max(args.stages), args.settings[0])
        print("| stage | setting | alone (s) | beside another program (s) | ratio |")
        print("|---|---|---|---|---|")
        for stage in sorted(args.stages, reverse=True):  # later ones need the earlier ones
            for setting in args.settings:
                recipe.remove(stage)
                alone = recipe.run(stage, stage, setting)
                recipe.remove(stage)
                with busy():
                    beside = recipe.run(stage, stage, setting, args.limit)
                ratio = f"{beside / alone:.2f}" if beside else f"> {args.limit / alone:.1f}"
                taken = f"{beside:.0f}" if beside else f"> {args.limit:.0f}"
                print(f"| {stage} | {setting} | {alone:.0f} | {taken} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
