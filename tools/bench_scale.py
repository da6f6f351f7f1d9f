#!/usr/bin/env python3
"""Measure how writing, validating, dumping (audio only) and combining a set grow with its size.

    tools/bench_scale.py [--counts 2000 20000] [--out FOLDER] [--nj 1] [--rate 16000]
                         [--seconds 0.1]

The sets are virtual: one recording of 100 s, N segments of --seconds in it (0.1 s shows the cost of
an utterance rather than of its audio). At --rate 16000 the dump reads them and refers to them; at
any other it converts them and writes N small files, each at least 4 kB on disk. Every step runs in
its own processes, as in a recipe. Wall and CPU time count all of them; memory is the peak
(resident) of the largest. The exit status is 1 if a step needs more than --max_megabytes.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # pam, installed or not

from pam.errors import UserError, run_main  # noqa: E402

RECORDING_SECONDS, STEP_SECONDS = 100.0, 0.01
UTTERANCES_OF_A_SPEAKER = 100
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


def measure(count: int, step: str, command: list[str]) -> Measured:
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
            raise UserError(f"{step} of {count} utterances failed: {' '.join(last)}")
    return Measured(count, step, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


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
    parser.add_argument("--max_megabytes", type=float, default=1000)
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)  # the step "write"
    args = parser.parse_args(argv)
    if args.make:
        make_set(args.make, args.out, args.rate, args.seconds)
        return 0
    rows = []
    with tempfile.TemporaryDirectory(prefix="pam-scale.") as temporary:
        for count in args.counts:
            folder = (args.out or Path(temporary)) / str(count)
            shutil.rmtree(folder, ignore_errors=True)
            for step, command in steps(count, folder.absolute(), args).items():
                rows.append(measure(count, step, command))
                print(f"{step} of {count}: {rows[-1].wall_seconds:.1f} s", file=sys.stderr)
    print(table(rows))
    over = [row for row in rows if row.megabytes > args.max_megabytes]
    for row in over:
        print(f"error: {row.step} of {row.count}: {row.megabytes:.0f} MB", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    run_main(main)
