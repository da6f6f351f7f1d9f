#!/usr/bin/env python3
"""Measure how well the no-speech score separates silence, noise and short clips from test sets.

    tools/bench_silence.py dump/raw/SET…

For each kind of made clips, and for each set with the prompts of its own tasks, the table has the
lowest, median and highest score, and how many clips reach the threshold. No model is needed.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # pam, installed or not

import numpy as np  # noqa: E402

from pam.data.audio import load_audio  # noqa: E402
from pam.data.datadir import DataDir  # noqa: E402
from pam.decode.checks import no_speech, no_speech_of  # noqa: E402
from pam.decode.settings import NO_SPEECH  # noqa: E402
from pam.errors import run_main  # noqa: E402
from pam.rate import SAMPLE_RATE  # noqa: E402

CUTS = (0.1, 0.2, 0.3, 0.4)  # seconds of real clips
LENGTHS, LEVELS = (0.6, 1.0, 2.5, 8.0), (-70, -60, -50, -40, -30, -20)  # seconds, dBFS
SLOPES = {"white noise": 0.0, "pink noise": 0.5, "brown noise": 1.0}  # amplitude by frequency


def noise(slope: float, seconds: float, level: float, seed: int) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(size=round(seconds * SAMPLE_RATE))
    spectrum = np.fft.rfft(samples)
    hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    spectrum *= np.where(hertz < 20, 0, np.maximum(hertz, 20) ** -slope)
    return at_level(np.fft.irfft(spectrum, len(samples)), level)


def hum(hertz: float, seconds: float, level: float) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    waves = [np.sin(2 * np.pi * hertz * k * time + k) / k for k in range(1, 6)]
    return at_level(np.sum(waves, axis=0), level)


def at_level(samples: np.ndarray, level: float) -> np.ndarray:
    return (samples / samples.std() * 10 ** (level / 20)).astype(np.float32)


def made() -> Iterator[tuple[str, np.ndarray]]:
    for seconds in LENGTHS:
        yield "digital silence", np.zeros(round(seconds * SAMPLE_RATE), np.float32)
        dither = np.random.default_rng(0).integers(-1, 2, round(seconds * SAMPLE_RATE)) / 32768
        yield "dither of 16 bits", dither.astype(np.float32)
        for seed, level in enumerate(LEVELS):
            for name, slope in SLOPES.items():
                yield name, noise(slope, seconds, level, seed)
            for hertz in (50, 60):
                yield "hum of 50 or 60 Hz", hum(hertz, seconds, level)


def report(name: str, scores: list[float]) -> None:
    low, middle, high = np.percentile(scores, (0, 50, 100))
    reached = sum(score >= NO_SPEECH for score in scores)
    print(f"| {name} | {low:.3f} | {middle:.3f} | {high:.3f} | {reached} of {len(scores)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", type=Path, nargs="+")
    args = parser.parse_args()
    clips: dict[str, list[np.ndarray]] = {}
    for name, samples in made():
        clips.setdefault(name, []).append(samples)
    sets = {}
    for folder in args.sets:
        data = DataDir.read(folder)
        sets[folder.name] = [no_speech_of(data, utt, needed=True) for utt in data.utterances]
        for utt in data.utterances:
            samples = load_audio(*data.audio(utt))
            for seconds in CUTS:
                start = (len(samples) - round(seconds * SAMPLE_RATE)) // 2
                part = samples[start : start + round(seconds * SAMPLE_RATE)]
                clips.setdefault(f"{seconds} s of the sets' clips", []).append(part)
    print(f"| clips | lowest | median | highest | at least {NO_SPEECH} |")
    print("|---|---|---|---|---|")
    for name, found in clips.items():
        report(f"{name}, to transcribe", [no_speech(samples, True) for samples in found])
        report(f"{name}, other prompts", [no_speech(samples, False) for samples in found])
    for name, scores in sets.items():
        report(f"`{name}`", scores)


if __name__ == "__main__":
    run_main(main)
