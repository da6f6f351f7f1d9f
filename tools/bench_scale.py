#!/usr/bin/env python3
"""Measure how the stages grow with the size of a set: up to combining, or up to training.

    tools/bench_scale.py [--counts 2000 20000] [--out FOLDER] [--nj 1] [--rate 16000]
                         [--seconds 0.1]
    tools/bench_scale.py --tables [--counts 100000 300000 1000000] [--out FOLDER]

The sets are virtual: one recording of 100 s, N segments of --seconds in it (0.1 s shows the cost of
an utterance rather than of its audio). At --rate 16000 the dump reads them and refers to them; at
any other it converts them and writes N small files, each at least 4 kB on disk. With --tables there
is no audio: four sets of N / 4 utterances, one for each task, as a dump leaves them, are written,
combined and validated; then the parts of the start of training are measured in one process, with
features computed in training. Every step runs in its own processes, as in a recipe. Wall and CPU
time count all of them; memory is the peak (resident) of the largest. The exit status is 1 if a
step needs more than --max_megabytes.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # pam, installed or not

from pam.errors import PamError, run_main  # noqa: E402

RECORDING_SECONDS, STEP_SECONDS = 100.0, 0.01
UTTERANCES_OF_A_SPEAKER = 100
TASKS = ("asr_clean", "asr_noisy", "snv", "ac")
PASSES = 2
START = "start of training"
TEXT = "one of the many short answers of a virtual set number"


@dataclass(frozen=True)
class Measured:
    count: int
    step: str
    wall_seconds: float
    cpu_seconds: float
    megabytes: float


def make_set(count: int, folder: Path, rate: int, seconds: float) -> None:
    """A data directory, `folder`/data/set: `count` segments of `seconds` of one recording."""
    # Imported here: a started process inherits the memory peak of its parent.
    from pam.data.datadir import DataDir

    wav = folder / "recording.wav"
    write_recording(wav, rate)
    places = round((RECORDING_SECONDS - seconds) / STEP_SECONDS)
    utt2spk, segments, text = {}, {}, {}
    for number in range(count):
        speaker = f"virtual-speaker-{number // UTTERANCES_OF_A_SPEAKER:06d}"
        utt = f"{speaker}-utterance-{number:08d}"
        start = (number % places) * STEP_SECONDS
        utt2spk[utt] = speaker
        segments[utt] = f"recording {start:.2f} {start + seconds:.2f}"
        text[utt] = f"{TEXT} {number}"
    files = {"wav.scp": {"recording": str(wav)}, "text": text, "utt2spk": utt2spk}
    files |= {"segments": segments, "utt2task": dict.fromkeys(text, "asr_clean")}
    DataDir(files).write(folder / "data/set")


def make_tables(count: int, raw: Path) -> None:
    """Four data directories in `raw` as a dump leaves them; their audio does not exist."""
    from pam.data.datadir import DataDir

    for task in TASKS:
        samples = {}
        for number in range(count // len(TASKS)):
            speaker = f"{task}-{number // UTTERANCES_OF_A_SPEAKER:06d}"
            samples[f"{speaker}-utterance-{number:08d}"] = str(16000 + number * 7919 % 464000)
        files = {"wav.scp": {utt: f"/corpora/{task}/audio/{utt}.flac" for utt in samples}}
        files |= {"text": {utt: f"{TEXT} {utt[-8:]}" for utt in samples}}
        files |= {"utt2spk": {utt: utt.rpartition("-utterance")[0] for utt in samples}}
        files |= {"utt2task": dict.fromkeys(samples, task), "utt2num_samples": samples}
        DataDir(files).write(raw / task)


def write_recording(wav: Path, rate: int) -> None:
    import numpy as np
    import soundfile

    times = np.arange(round(RECORDING_SECONDS * rate), dtype=np.float32) / rate
    wav.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(wav, 0.1 * np.sin(2 * np.pi * 200 * times), rate)


def steps(count: int, folder: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """Name → command, in order; the steps leave what the next one needs in `folder`."""
    data, raw = folder / "data/set", folder / "dump/raw"
    verb = [sys.executable, "-m"]
    make = [sys.executable, __file__, "--make", str(count)]
    if options.tables:
        sets, combined = [str(raw / task) for task in TASKS], folder / "dump/combined"
        return {
            "write": [*make, "--out", str(raw), "--tables"],
            "combine": [*verb, "pam.bin.combine", "--train", *sets]
            + ["--dev", sets[-1], "--out", str(combined)],
            "validate": [*verb, "pam.bin.validate", "--audio", "none", str(combined / "train")],
            START: [sys.executable, __file__, "--start", str(combined / "train")],
        }
    return {
        "write": [*make, "--out", str(folder), "--rate", str(options.rate)]
        + ["--seconds", str(options.seconds)],
        "validate": [*verb, "pam.bin.validate", str(data)],
        "dump": [*verb, "pam.bin.dump", "--data", str(data), "--out", str(raw)]
        + ["--feats", "online", "--nj", str(options.nj)],
        "validate dumped": [*verb, "pam.bin.validate", str(raw / "set")],
        "combine": [*verb, "pam.bin.combine", "--train", str(raw / "set")]
        + ["--dev", str(raw / "set"), "--out", str(folder / "dump/combined")],
    }


def start_of_training(folder: Path) -> None:
    """Print the parts of the start as JSON lines: name, wall and CPU seconds, peak so far."""
    begin = time.monotonic(), time.process_time()

    def measured(part: str) -> None:
        nonlocal begin
        now = time.monotonic(), time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([part, now[0] - begin[0], now[1] - begin[1], peak]), flush=True)
        begin = time.monotonic(), time.process_time()

    from pam.config import load_yaml
    from pam.data.digests import LEARNED, data_digest
    from pam.train.iterators import (
        TaskBalancedIterFactory,
        batches_by_task,
        limits,
        steps_of_passes,
    )
    from pam.train.task import read_lengths, read_utt2task, training_set

    measured("import")
    data_digest(folder, LEARNED)
    measured("data_digest")
    config = {"tasks": list(TASKS), "encoders": {}, "feats": "online"}
    batch = limits(load_yaml(ROOT / "conf/scale/paper.yaml"), 1)
    utt2task, lengths = read_utt2task(folder, config["tasks"]), read_lengths(folder)
    measured("read_utt2task, read_lengths")
    steps_of_passes(batches_by_task(utt2task, lengths, **batch, seed=0), PASSES)
    measured(f"steps_of_passes, {PASSES} passes")
    dataset = training_set(None, folder, config)
    measured("training_set")
    factory = TaskBalancedIterFactory(
        dataset, utt2task, lengths, steps=2000, seed=0, collate_fn=None, accum_grad=4, **batch
    )
    for epoch in (1, 50, 51):
        factory.build_iter(epoch)
        measured(f"batches of epoch {epoch}")


def measure(count: int, step: str, command: list[str]) -> list[Measured]:
    """The step, after the parts that it prints."""
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    begin = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            last = output.read().decode(errors="replace").strip().splitlines()[-1:]
            raise PamError(f"{step} of {count} utterances failed: {' '.join(last)}")
        output.seek(0)
        lines = output.read().decode().splitlines() if step == START else []
    parts = [json.loads(line) for line in lines if line.startswith("[")]
    cpu = usage.ru_utime + usage.ru_stime
    whole = Measured(count, step, wall, cpu, usage.ru_maxrss / 1024)
    return [*(Measured(count, *part) for part in parts), whole]


def table(rows: list[Measured]) -> str:
    """Markdown."""
    lines = ["| utterances | step | wall s | CPU s | CPU ms an utterance | peak MB |"]
    lines += ["| ---: | --- | ---: | ---: | ---: | ---: |"]
    for row in rows:
        each = 1000 * row.cpu_seconds / row.count
        lines.append(
            f"| {row.count} | {row.step} | {row.wall_seconds:.1f} | {row.cpu_seconds:.1f} "
            f"| {each:.3f} | {row.megabytes:.0f} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--out", type=Path, help="default: a temporary folder, removed at the end")
    parser.add_argument("--nj", type=int, default=1, help="processes of the dump")
    parser.add_argument("--rate", type=int, default=16000, help="of the recording, hertz")
    parser.add_argument("--seconds", type=float, default=0.1, help="of a segment, below 100")
    parser.add_argument("--max_megabytes", type=float, default=1500)
    parser.add_argument("--tables", action="store_true", help="no audio, but training's start")
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)  # the step "write"
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)  # the step START
    args = parser.parse_args(argv)
    if args.make and args.tables:
        make_tables(args.make, args.out)
    elif args.make:
        make_set(args.make, args.out, args.rate, args.seconds)
    elif args.start:
        start_of_training(args.start)
    else:
        return measure_all(args)
    return 0


def measure_all(args: argparse.Namespace) -> int:
    """The exit status: 1 if a step needs too much memory."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="pam-scale.") as temporary:
        for count in args.counts:
            folder = (args.out or Path(temporary)) / str(count)
            shutil.rmtree(folder, ignore_errors=True)
            for step, command in steps(count, folder.absolute(), args).items():
                rows += measure(count, step, command)
                print(f"{step} of {count}: {rows[-1].wall_seconds:.1f} s", file=sys.stderr)
    print(table(rows))
    over = [row for row in rows if row.megabytes > args.max_megabytes]
    for row in over:
        print(f"error: {row.step} of {row.count}: {row.megabytes:.0f} MB", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    run_main(main)
