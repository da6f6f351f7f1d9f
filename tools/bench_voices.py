#!/usr/bin/env python3
"""Measure how well each hidden state of encoders separates the voices of snv items (mini corpus).

    tools/bench_voices.py egs/mini/data/snv_dev '{family: resemblyzer, path: cache:resemblyzer}' …

A segment's vector is the mean of a state over its frames; the mean over all segments is subtracted.
The figure is the area under the ROC curve of the cosines of two segments of an item: the
probability that two of one person are closer than two of different people. Items are those that
egs/mini/local/prepare.py draws, so segments are known; text_warmup of the set confirms it.
"""

import argparse
import sys
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "egs" / "mini" / "local")]  # pam, installed or not

import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from mini_items import Item  # noqa: E402
from mini_speakers import segments_of, speaker_items  # noqa: E402
from torch import Tensor  # noqa: E402

from pam.config import load_yaml  # noqa: E402
from pam.data.audio import load_audio  # noqa: E402
from pam.data.datadir import DataDir  # noqa: E402
from pam.encoders import AudioEncoder, load_encoder  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402
from pam.paths import conf_file  # noqa: E402
from pam.rate import FRAMES_PER_SECOND  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("set", type=Path, help="snv_train, snv_dev or snv_test of the mini corpus")
    parser.add_argument("encoders", nargs="*", type=yaml.safe_load, help="YAML; default: mini's")
    parser.add_argument("--seed", type=int, default=0, help="of the preparation")
    args = parser.parse_args(argv)
    data = DataDir.read(args.set)
    items = items_of(args.set, data, args.seed)
    for spec in args.encoders or load_yaml(conf_file("scale", "mini"))["encoders"].values():
        encoder = load_encoder(spec)
        vectors_ISKD = torch.stack([segments(encoder, data, item) for item in items])
        vectors_ISKD -= vectors_ISKD.mean(dim=(0, 2), keepdim=True)
        areas = [area(*cosines(v_IKD, items)) for v_IKD in vectors_ISKD.unbind(dim=1)]
        print(spec["path"], spec.get("conf") or "", *(f"{a:.3f}" for a in areas), flush=True)
    return 0


def items_of(folder: Path, data: DataDir, seed: int) -> list[Item]:
    """The items of the set, drawn again; PamError if the set holds others."""
    items = speaker_items(folder.name.removeprefix("snv_"), len(data), seed)
    if data["text_warmup"] != {item.id: item.tables["text_warmup"] for item in items}:
        raise PamError(f"{folder}: not what egs/mini/local/prepare.py draws with --seed {seed}")
    return items


# I items, S states, K segments of an item, D width, T frames


@torch.no_grad()
def segments(encoder: AudioEncoder, data: DataDir, item: Item) -> Tensor:
    """[S, K, D]: the mean of every state over the frames of every segment."""
    audio = torch.from_numpy(load_audio(*data.audio(item.id)))
    states_STD = encoder(audio[None], torch.tensor([len(audio)]))[0][0].float()
    means, end = [], 0.0
    for segment in segments_of(item):
        start = end + segment.pause
        end = start + segment.seconds
        frames = slice(round(start * FRAMES_PER_SECOND), round(end * FRAMES_PER_SECOND))
        means.append(states_STD[:, frames].mean(dim=1))
    return torch.stack(means, dim=1)


def cosines(vectors_IKD: Tensor, items: list[Item]) -> tuple[list[float], list[float]]:
    """Of pairs of segments of one person, and of two people."""
    same, different = [], []
    unit_IKD = torch.nn.functional.normalize(vectors_IKD, dim=-1)
    for vectors_KD, item in zip(unit_IKD, items, strict=True):
        for (a, one), (b, other) in combinations(enumerate(item.tables["text_warmup"].split()), 2):
            cosine = float(vectors_KD[a] @ vectors_KD[b])
            (same if one == other else different).append(cosine)
    return same, different


def area(high: list[float], low: list[float]) -> float:
    """The probability that one of `high` is above one of `low`."""
    ordered = np.sort(low)
    return float(np.searchsorted(ordered, high).mean() / len(low))


if __name__ == "__main__":
    run_main(main)
