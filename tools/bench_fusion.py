#!/usr/bin/env python3
"""Compare the two orders of a linear FFN_e: project each state, or sum states first.

    tools/bench_fusion.py [--scale mini] [--clips 5] [--frames 130] [--rounds 12] [--threads 1]

Both sides are PaM with the encoders and the fusion of the scale, but a linear FFN_e, the same
weights and random states. They take turns; each turn is a forward and a backward pass. Columns:
median of seconds; speed relative to sums first; largest difference of a feature from sums first.
"""

import argparse
import copy
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # pam, installed or not

import torch  # noqa: E402

from pam.config import read_scale  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402
from pam.fusion import build_fusion  # noqa: E402
from pam.fusion.pam import PromptAwareMixture  # noqa: E402
from pam.paths import conf_file  # noqa: E402

WIDTH = 576  # of SmolLM2-135M
TASKS = 4


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", default="mini")
    parser.add_argument("--clips", type=int, default=5)
    parser.add_argument("--frames", type=int, default=130, help="of a clip, 25 per second")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def sides(scale: str) -> tuple[dict[str, PromptAwareMixture], list[tuple[int, int]]]:
    """The mixtures by order, and (states, width) of each encoder."""
    conf = read_scale(conf_file("scale", scale))
    shapes = [(encoder.num_states, encoder.dim) for encoder in conf.encoders.values()]
    torch.manual_seed(0)
    options = conf.fusion_conf or {}
    options = {**options, "adapter": {**options.get("adapter", {}), "kind": "linear"}}
    mixture = build_fusion(
        "pam", [d for _, d in shapes], [s for s, _ in shapes], WIDTH, TASKS, options
    )
    if not any(adapter.projects_first for adapter in mixture.adapters):
        raise PamError(f"--scale {scale}: no adapter of PaM projects its states first")
    other = copy.deepcopy(mixture)
    other.expect_sums(0)
    return {"states projected first": mixture, "sums first": other}, shapes


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    mixtures, shapes = sides(args.scale)
    states = [
        torch.randn(args.clips, args.frames, count, dim).transpose(1, 2) for count, dim in shapes
    ]
    lengths = torch.full((args.clips,), args.frames)
    gate = torch.eye(TASKS)[torch.arange(args.clips) % TASKS]
    seconds: dict[str, list[float]] = {name: [] for name in mixtures}
    features = {}
    for _ in range(args.rounds):
        for name, mixture in mixtures.items():
            start = time.perf_counter()
            features[name] = mixture(states, lengths, gate)
            features[name].square().mean().backward()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    print("| order | s | speed | largest difference |\n|---|---:|---:|---:|")
    for name, median in medians.items():
        speed = medians["sums first"] / median
        difference = (features[name] - features["sums first"]).abs().max().item()
        print(f"| {name} | {median:.3f} | {speed:.2f} | {difference:.1e} |")


if __name__ == "__main__":
    run_main(main)
