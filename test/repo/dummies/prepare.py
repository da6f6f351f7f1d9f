#!/usr/bin/env python3
"""A dummy corpus: one clip of noise for each note."""

import argparse
import sys
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # pam, installed or not

from pam.data.datadir import DataDir  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    for option in ("corpus", "name", "task", "out", "size"):
        parser.add_argument(f"--{option}")
    args = parser.parse_args()
    for part in ("train", "dev", "test"):
        utts = {f"ann-{part}-{note}": note for note in "ab"}
        wavs = {utt: Path(args.corpus).absolute() / f"{utt}.wav" for utt in utts}
        for number, wav in enumerate(wavs.values()):
            noise = np.random.default_rng(number).standard_normal(8000 + 640 * number)
            soundfile.write(wav, 0.1 * noise, 16000)
        files = {
            "wav.scp": {utt: str(wav) for utt, wav in wavs.items()},
            "text": {utt: f"note {note}" for utt, note in utts.items()},
            "utt2spk": dict.fromkeys(utts, "ann"),
            "utt2task": dict.fromkeys(utts, args.task),
        }
        DataDir(files).write(Path(args.out) / f"{args.name}_{part}")


if __name__ == "__main__":
    main()
