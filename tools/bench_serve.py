#!/usr/bin/env python3
"""Measure the server: throughput and latency with and without batching, and its memory.

    tools/bench_serve.py --exp exp/NAME --data dump/raw/SET [--clients 1 8 32] [--requests 96]
                         [--batches 1 16] [--prompt "Transcribe the speech."]
    tools/bench_serve.py --exp exp/NAME --data dump/raw/SET --memory 2000 --longest 2 --tokens 2

For each limit of `--batches` (requests that are answered together) it starts `pam.bin.serve`, and
for each number of clients it sends `--requests` requests about the clips of the set. The columns
are requests per second, RTFx (seconds of audio per second), and the 50th and 95th percentile of
the time of a request in seconds.

`--memory` N starts one server instead, sends N requests by 16 clients, and prints its resident
memory as it goes. `--longest` (seconds) and `--tokens` (of an answer) make requests short.
"""

import argparse
import io
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # pam, installed or not

import httpx  # noqa: E402
import numpy as np  # noqa: E402
import soundfile  # noqa: E402

from pam.data.audio import load_audio  # noqa: E402
from pam.data.datadir import DataDir  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402
from pam.rate import SAMPLE_RATE  # noqa: E402
from pam.serve.limits import Limits  # noqa: E402

NAME = "bench"
START_SECONDS, ANSWER_SECONDS = 300, 600
CLIENTS = 16  # of --memory


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exp", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a data directory with audio")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--memory", type=int, metavar="REQUESTS")
    parser.add_argument("--longest", type=float, help="leave out clips of more seconds")
    parser.add_argument("--tokens", type=int, default=Limits.tokens, help="of an answer, at most")
    parser.add_argument("--prompt", default="Transcribe the speech.")
    parser.add_argument("--ngpu", type=int, default=0)
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    clips, seconds = read_clips(args.data, args.requests, args.longest)
    if args.memory:
        with serving(args, Limits.batch) as (address, server):
            watch_memory(address, server, args, clips)
        return
    print(
        "| batch | clients | requests/s | RTFx | p50 s | p95 s |\n|---:|---:|---:|---:|---:|---:|"
    )
    for batch in args.batches:
        with serving(args, batch) as (address, server):
            times_of(address, args, clips[:8], 1)  # prompts and kernels are prepared
            for clients in args.clients:
                started = time.monotonic()
                times = times_of(address, args, clips, clients)
                wall = time.monotonic() - started
                p50, p95 = statistics.median(times), float(np.percentile(times, 95))
                speed = f"{len(clips) / wall:.2f} | {seconds / wall:.1f} | {p50:.2f} | {p95:.2f}"
                print(f"| {batch} | {clients} | {speed} |", flush=True)


def read_clips(folder: Path, count: int, longest: float | None) -> tuple[list[bytes], float]:
    """`count` clips as WAV, an even sample of the set or repeated, and their seconds. `PamError` if
    there are none."""
    if count < 1:
        raise PamError(f"--requests {count}: give at least 1")
    data = DataDir.read(folder)
    utterances = data.utterances
    if not utterances:
        raise PamError(f"{folder}: no clip: give --data a set with audio")
    if longest is not None:
        if "utt2dur" not in data:
            raise PamError(
                f"{folder}: --longest needs its utt2dur: write it, or leave --longest out"
            )
        utterances = [utt for utt in utterances if float(data["utt2dur"][utt]) <= longest]
    if not utterances:
        raise PamError(f"{folder}: no clip has at most {longest:g} s: give a larger --longest")
    chosen = [utterances[n * len(utterances) // count % len(utterances)] for n in range(count)]
    samples = [load_audio(*data.audio(utt)) for utt in chosen]
    return [as_wav(clip) for clip in samples], sum(map(len, samples)) / SAMPLE_RATE


def as_wav(clip: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, clip, SAMPLE_RATE, format="WAV")
    return file.getvalue()


@contextmanager
def serving(args: argparse.Namespace, batch: int) -> Iterator[tuple[str, subprocess.Popen]]:
    port = free_port()
    command = [sys.executable, "-m", "pam.bin.serve", str(args.exp), "--name", NAME]
    command += ["--port", str(port), "--batch", str(batch), "--tokens", str(args.tokens)]
    command += ["--ngpu", str(args.ngpu)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, server)
        yield address, server
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(address: str, server: subprocess.Popen) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            httpx.get(f"{address}/health")
            return
        except httpx.TransportError:
            time.sleep(0.5)
    raise PamError("the server did not start: run pam.bin.serve with the same experiment")


def times_of(
    address: str, args: argparse.Namespace, clips: list[bytes], clients: int
) -> list[float]:
    """The seconds of a request about each clip, of so many clients at once."""

    def ask(clip: bytes) -> float:
        started = time.monotonic()
        response = client.post(
            f"{address}/v1/audio/transcriptions",
            data={"model": NAME, "prompt": args.prompt},
            files={"file": clip},
        )
        response.raise_for_status()
        return time.monotonic() - started

    limits = httpx.Limits(max_connections=clients)
    with (
        httpx.Client(timeout=ANSWER_SECONDS, limits=limits) as client,
        ThreadPoolExecutor(clients) as pool,
    ):
        return list(pool.map(ask, clips))


def watch_memory(
    address: str, server: subprocess.Popen, args: argparse.Namespace, clips: list[bytes]
) -> None:
    """Print the server's memory before and between `--memory` requests."""
    print("| requests | resident, MB | seconds |\n|---:|---:|---:|")
    started, done = time.monotonic(), 0
    for mark in sorted({0, min(100, args.memory), *range(500, args.memory, 500), args.memory}):
        times_of(address, args, [clips[n % len(clips)] for n in range(done, mark)], CLIENTS)
        done = mark
        print(
            f"| {done} | {resident_mb(server.pid):.0f} | {time.monotonic() - started:.0f} |",
            flush=True,
        )


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


if __name__ == "__main__":
    run_main(main)
