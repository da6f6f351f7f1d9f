#!/usr/bin/env python3
"""Measure the cost of exact decoding, and how many answers depend on the batch size without it.

    tools/bench_decode.py --exp exp/NAME --data dump/raw/SET… [--rounds 3] [--utts 60]
                          [--sizes 1 8 60] [--threads 1] [--ngpu 0]

The two modes decode the same utterances in turns, `--rounds` times, each at its default batch size.
The ratio is that of the medians of wall time; on a busy machine, use the ratio of CPU time. Then
each mode decodes with `--sizes`, and answers that differ from those of its default are counted.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # pam, installed or not

import torch  # noqa: E402

from pam.config import load_yaml  # noqa: E402
from pam.data.datadir import DataDir  # noqa: E402
from pam.data.prompts import prompts_of  # noqa: E402
from pam.data.utterances import read_inputs, read_utterances  # noqa: E402
from pam.decode.decode_set import decode_utterances  # noqa: E402
from pam.decode.settings import BATCH_SIZE, PLAIN_BATCH_SIZE, Settings  # noqa: E402
from pam.device import device_for  # noqa: E402
from pam.errors import run_main  # noqa: E402
from pam.model.build import load_experiment  # noqa: E402

MODES = {
    "plain": Settings(exact=False, batch_size=PLAIN_BATCH_SIZE),
    "exact": Settings(exact=True, batch_size=BATCH_SIZE),
}


class Bench:
    """A model and some utterances of every set."""

    def __init__(self, args: argparse.Namespace):
        device = device_for(args.ngpu)
        config = load_yaml(args.exp / "config.yaml")
        self.feats = config["feats"]
        self.model = load_experiment(args.exp, online=self.feats == "online").to(device)
        self.sets = []
        for folder in args.data:
            data = DataDir.read(folder)
            prompts = prompts_of(config, sorted(set(data["utt2task"].values())))
            utterances = read_utterances(data, prompts, "unseen", 0)[: args.utts]
            encoders = [shape.name for shape in self.model.shapes]
            inputs = read_inputs(folder, encoders, self.feats, data["text"])
            self.sets.append((utterances, inputs))

    def decode(self, settings: Settings) -> list[str]:
        """The answers."""
        lines = []
        for utterances, inputs in self.sets:
            lines += decode_utterances(
                self.model, utterances, inputs, replace(settings, feats=self.feats)
            )
        return [line["hyp"] for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exp", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--utts", type=int, default=60, help="of every set")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1, 8, 60])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ngpu", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    answers = {mode: bench.decode(settings) for mode, settings in MODES.items()}  # warms up, too
    times = {mode: [] for mode in MODES}
    for _ in range(args.rounds):
        for mode, settings in MODES.items():
            wall, cpu = time.perf_counter(), time.process_time()
            assert bench.decode(settings) == answers[mode]
            times[mode].append((time.perf_counter() - wall, time.process_time() - cpu))
    for place, kind in enumerate(("wall", "CPU")):
        median = {mode: statistics.median(t[place] for t in found) for mode, found in times.items()}
        each = ", ".join(f"{mode} {seconds:.1f} s" for mode, seconds in median.items())
        ratio = median["exact"] / median["plain"]
        print(
            f"{kind} time of {len(answers['plain'])} answers: {each}: {ratio:.2f} times", flush=True
        )
    for mode, settings in MODES.items():
        for size in args.sizes:
            found = bench.decode(replace(settings, batch_size=size))
            differ = sum(a != b for a, b in zip(found, answers[mode], strict=True))
            print(f"{mode}, batch size {size}: {differ} answers differ from those of", end=" ")
            print(f"{settings.batch_size}", flush=True)


if __name__ == "__main__":
    run_main(main)
