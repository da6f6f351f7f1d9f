#!/usr/bin/env python3
"""Compare reading short clips from files and from tar shards, in random order.

    tools/bench_shards.py [--clips 20000] [--seconds 1] [--rounds 3] [--size 100M] [--out FOLDER]

The clips are FLAC files of noise, CLIPS / 1000 folders of 1000. Each round reads all of them from
files and from shards in turn, in the same random order, with `load_audio`: first without their
content in the page cache, then with it. (The kernel keeps the names and places of the files, which
is to their advantage.) The ratio is the median over the rounds of time from files over time from
shards.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # pam, installed or not

from pam.bin.shard import size  # noqa: E402
from pam.data.audio import load_audio, write_flac  # noqa: E402
from pam.data.datadir import DataDir  # noqa: E402
from pam.data.pack import FOLDER, pack  # noqa: E402
from pam.errors import run_main  # noqa: E402
from pam.rate import SAMPLE_RATE  # noqa: E402

CLIPS_IN_FOLDER = 1000
DISTINCT = 100  # clips that are encoded; the others are copies of them


def make_clips(folder: Path, clips: int, seconds: float) -> Path:
    """A data directory with an utterance for each file."""
    files: dict[str, str] = {}
    for number in range(clips):
        utt = f"clip-{number:08d}"
        file = folder / f"files/{number // CLIPS_IN_FOLDER:05d}/{utt}.flac"
        if number < DISTINCT:
            samples = 0.1 * np.random.default_rng(number).normal(size=round(seconds * SAMPLE_RATE))
            write_flac(file, samples.astype(np.float32))
        else:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(Path(files[f"clip-{number % DISTINCT:08d}"]).read_bytes())
        files[utt] = str(file)
    each = {"text": "a clip", "utt2task": "ac", "utt2spk": "clip"}
    tables = {name: dict.fromkeys(files, value) for name, value in each.items()}
    DataDir(tables | {"wav.scp": files}).write(folder / "set")
    return folder / "set"


def forget(files: Iterable[Path]) -> None:
    """Remove the content of files from the page cache."""
    for file in files:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds_of(entries: Sequence[str]) -> float:
    begin = time.monotonic()
    for entry in entries:
        load_audio(entry)
    return time.monotonic() - begin


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=20000)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a clip")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=size, default="100M", help="of a shard")
    parser.add_argument("--out", type=Path, help="default: a temporary folder, removed at the end")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="pam-shards.") as temporary:
        folder = (args.out or Path(temporary)).absolute()
        data = make_clips(folder, args.clips, args.seconds)
        pack(data, folder / "packed", args.size)
        os.sync()  # pages that are not on the disk yet cannot be forgotten
        print(table(folder, args.rounds))
    return 0


def table(folder: Path, rounds: int) -> str:
    """Markdown."""
    entries = {
        "files": DataDir.read(folder / "set")["wav.scp"],
        "shards": DataDir.read(folder / "packed")["wav.scp"],
    }
    shards = list((folder / "packed" / FOLDER).iterdir())
    on_disk = {"files": [Path(file) for file in entries["files"].values()], "shards": shards}
    lines = ["| page cache | files s | shards s | files / shards |", "| --- | ---: | ---: | ---: |"]
    order = list(entries["files"])
    for cache in ("cold", "warm"):
        times: dict[str, list[float]] = {"files": [], "shards": []}
        for number in range(rounds):
            Random(number).shuffle(order)
            for kind in sorted(times, reverse=number % 2 == 1):
                if cache == "cold":
                    forget(on_disk[kind])
                times[kind].append(seconds_of([entries[kind][utt] for utt in order]))
        ratios = [f / s for f, s in zip(times["files"], times["shards"], strict=True)]
        medians = [statistics.median(values) for values in (*times.values(), ratios)]
        lines.append(f"| {cache} | {medians[0]:.2f} | {medians[1]:.2f} | {medians[2]:.2f} |")
    used = [sum(file.stat().st_blocks for file in files) / 2048 for files in on_disk.values()]
    lines += ["", f"{len(order)} files take {used[0]:.0f} MiB, {len(shards)} shards {used[1]:.0f}"]
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
