#!/usr/bin/env python3
"""Rehearse a training at the size of a scale, with random weights and noise, without a download.

    tools/rehearse.py [--scale paper] [--work DIR] [--out FILE.json] [--steps 3] [--seconds 4]
                      [--ngpu 0] [--threads 1] [--tokenizer cache:smollm2-135m-instruct]

Models of the scale's architectures are written with random weights. Their encoders and LLM then go
through the recipe's own programs, each in its own process: dump, combine, a training that SIGTERM
stops after an update, the same command again, average, decode. The scale's batch, budget and
development set are replaced by small ones (`small`); its shapes and types are kept.

The table has the seconds and the peak resident memory of each process, and beside them what
`pam.bin.plan` predicts for the same configuration: all tensors of a training, or the weights, where
a program only loads them. The answers are worth nothing. The LLM's tokenizer comes from
--tokenizer; its embeddings have the architecture's size. --work keeps the models in DIR/rehearsal
for the next time; without it everything is written to a temporary folder and removed. --ngpu 1 is
passed to the programs; nobody has tried it yet.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # pam, installed or not

from pam.atomic import write_json  # noqa: E402
from pam.config import load_yaml  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402
from pam.paths import conf_file  # noqa: E402
from pam.train.memory import MEASURED, available  # noqa: E402

# This process imports no torch: a started process inherits the memory peak of its parent.
SYSTEM = "pam"
GIB = 2**30
TEXTS = {"asr_clean": "hello you", "asr_noisy": "go on", "snv": "two", "ac": "a bell rings"}
SETS = {"train": (list(TEXTS), 4), "dev": (list(TEXTS), 2), "test": (["asr_clean"], 2)}
STOPPED = 128 + signal.SIGTERM
POLL_SECONDS = 0.005
LIBRARIES_BYTES = 1.5 * GIB  # libraries, kernels and the allocator, beside the tensors
CHECKPOINT_BYTES = 48  # of a trained weight: two checkpoints and one being written, three models
WEIGHTS = ("LLM", "encoders", "trained weights")  # parts of the plan that every program loads
SELF_SUPERVISED = ("wav2vec2", "wavlm", "hubert")


@dataclass(frozen=True)
class Part:
    """A measured process. `planned_bytes`: the tensors that the plan predicts, if it does."""

    part: str
    seconds: float
    peak_bytes: int
    planned_bytes: int | None = None


# --- random models and noise


def folder_of(models: Path, path: str) -> str:
    """Where the model at a configuration's `path` is written; the plan knows it by its name."""
    return str(models / path.removeprefix("cache:").rstrip("/").rpartition("/")[2])


def make_models(scale: dict[str, Any], models: Path, tokenizer: str) -> None:
    """Write the scale's models with random weights; those that exist are kept."""
    import torch

    from pam.llm.load import load_tokenizer, torch_type
    from pam.paths import resolve_model

    torch.manual_seed(0)
    llm = scale["llm_conf"]
    kinds = {conf["path"]: (torch.float32, conf["family"]) for conf in scale["encoders"].values()}
    kinds[llm["path"]] = (torch_type(llm.get("dtype", "bfloat16")), "llm")
    for path, (dtype, family) in kinds.items():
        out = Path(folder_of(models, path))
        if out.exists():
            continue
        part = out.with_name(f"{out.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        random_weights(path, dtype).save_pretrained(part, max_shard_size="1GB")
        if family == "llm":
            load_tokenizer(resolve_model(tokenizer)).save_pretrained(part)
        if family in SELF_SUPERVISED:
            write_json(part / "preprocessor_config.json", {"do_normalize": True})
        part.rename(out)


def random_weights(path: str, dtype: Any) -> Any:
    """The model at `path` with normal weights; norms multiply by one. No copy in float32."""
    from pam.model.architecture import on_meta

    model = on_meta(path).to(dtype).to_empty(device="cpu")
    model.tie_weights()
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):
            weight.data.fill_(1)
        else:
            weight.data.normal_(std=0.02)
    return model


def make_data(folder: Path, seconds: float) -> None:
    """Data directories of noise, as FLAC: the sets of `SETS`, whose clips have up to `seconds`."""
    import numpy as np
    import soundfile

    from pam.data.datadir import DataDir
    from pam.rate import SAMPLE_RATE

    rng = np.random.default_rng(0)
    for name, (tasks, count) in SETS.items():
        utts = {f"{name}-{task}-{i}": task for task in tasks for i in range(count)}
        wavs = {utt: str(folder / name / f"{utt}.flac") for utt in utts}
        (folder / name).mkdir(parents=True)
        for wav in wavs.values():
            samples = round(SAMPLE_RATE * seconds * rng.uniform(0.9, 1))
            soundfile.write(wav, rng.normal(0, 0.05, samples), SAMPLE_RATE)
        text = {utt: TEXTS[task] for utt, task in utts.items()}
        files = {"wav.scp": wavs, "text": text, "utt2spk": {u: u for u in utts}, "utt2task": utts}
        DataDir(files).write(folder / name)


def small(scale: dict[str, Any], steps: int, seconds: float) -> dict[str, Any]:
    """The scale with two clips a batch, one short epoch, and online features."""
    from pam.rate import FRAMES_PER_SECOND

    return scale | {
        "feats": "online",
        "warmup": "none",
        "batch": {"max_utts": 2, "max_frames": 2 * round(FRAMES_PER_SECOND * seconds)},
        "dev_utts": 1,
        "num_workers": 0,
        "checkpoint_minutes": 1e-9,  # one after every update
        "budgets": {"rehearsal": {"steps": steps, "steps_per_epoch": steps}},
    }


# --- the programs


class Rehearsal:
    """Runs parts one after the other, and collects what they took."""

    def __init__(self, work: Path, threads: int, ngpu: int):
        self.work, self.ngpu, self.parts = work, str(ngpu), []
        self.env = os.environ | {
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
            "OMP_NUM_THREADS": str(threads),
        }

    def run(
        self, part: str, *command: Any, planned: float | None = None, stop: Path | None = None
    ) -> str:
        """Run and measure python with `command`; its output. SIGTERM stops it once the file `stop`
        exists. PamError if its status is not the expected one."""
        log, begin = self.work / f"{part.replace(' ', '_')}.log", time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *map(str, command)], env=self.env, stdout=output, stderr=output
            )
            try:
                status, usage = wait(process, stop)
            finally:
                if process.returncode is None:
                    process.kill()
        text = log.read_text(encoding="utf-8", errors="replace")
        if status != (STOPPED if stop else 0):
            last = " ".join(text.strip().splitlines()[-1:])
            raise PamError(f"{part}: ended with status {status}: {last}")
        seconds, peak = time.monotonic() - begin, usage.ru_maxrss * 1024
        self.parts.append(Part(part, round(seconds, 1), peak, planned and round(planned)))
        print(f"{part}: {seconds:.1f} s, {peak / GIB:.2f} GiB", file=sys.stderr)
        return text

    def program(self, part: str, verb: str, *options: Any, **others: Any) -> str:
        return self.run(part, "-m", f"pam.bin.{verb}", *options, **others)

    def all_parts(self, plan: dict[str, Any]) -> None:
        work, exp, memory = self.work, self.work / "exp", plan["memory_bytes"]
        data, raw, both = work / "data", work / "dump/raw", work / "dump/combined"
        peak, weights = plan["peak_bytes"], sum(memory[part] for part in WEIGHTS)
        on = ["--ngpu", self.ngpu]
        sets = [data / name for name in SETS]
        self.run("libraries", "-c", "import pam.train.task")
        self.program("dump", "dump", "--feats", "online", "--out", raw, "--data", *sets)
        self.program(
            *("combine", "combine", "--out", both),
            *("--train", raw / "train", "--dev", raw / "dev", "--test", raw / "test"),
        )
        training = [
            *("--scale_config", work / "scale.yaml", "--budget", "rehearsal", "--expdir", exp),
            *("--system_config", conf_file("systems", SYSTEM)),
            *("--train", both / "train", "--dev", both / "dev", *on),
        ]
        midpoint = exp / "train/midpoint.pth"
        self.program("train until SIGTERM", "train", *training, planned=peak, stop=midpoint)
        log = self.program("train again", "train", *training, planned=peak)
        if "goes on after" not in log:
            raise PamError("train again: the training began anew: give more --steps")
        chosen = ["--exp", exp, "--dev", both / "dev", *on]
        self.program("average", "average", *chosen, planned=weights)
        options = ["--exp", exp, "--data", raw / "test", "--out", exp / "decoded", *on]
        self.program("decode", "decode", *options, "--max_new_tokens", 16, planned=weights)


def wait(process: subprocess.Popen, stop: Path | None) -> tuple[int, Any]:
    """Exit status and resource usage of a process."""
    while True:
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
        if found:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage
        if stop and stop.exists():
            process.send_signal(signal.SIGTERM)
            stop = None
        time.sleep(POLL_SECONDS)


def refuse_too_large(plan: dict[str, Any], work: Path, on_gpu: bool) -> None:
    """PamError if the plan needs more memory or disk than the machine has free."""
    memory, trained = plan["memory_bytes"], plan["parameters"]["trainable"]
    free = available()
    frozen = memory["LLM"] + memory["encoders"]
    resources = {
        "memory": (frozen if on_gpu else plan["peak_bytes"]) + LIBRARIES_BYTES - free,
        "disk": frozen + CHECKPOINT_BYTES * trained - shutil.disk_usage(work).free,
    }
    for name, lacking in resources.items():
        if lacking > 0:
            raise PamError(f"{work}: {lacking / GIB:.1f} GiB of {name} are lacking: free some")


def table(parts: list[Part]) -> str:
    """Markdown."""
    lines = ["| part | s | peak GiB | plan GiB |", "|---|---:|---:|---:|"]
    for row in parts:
        plan = "" if row.planned_bytes is None else f"{row.planned_bytes / GIB:.2f}"
        lines.append(f"| {row.part} | {row.seconds} | {row.peak_bytes / GIB:.2f} | {plan} |")
    return "\n".join([*lines, "| export | not there yet | | |"])


def rehearse(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    for old in ("data", "dump", "exp"):
        shutil.rmtree(work / old, ignore_errors=True)
    (work / "models").mkdir(parents=True, exist_ok=True)
    running = Rehearsal(work, args.threads, args.ngpu)
    scale = small(load_yaml(conf_file("scale", args.scale)), args.steps, args.seconds)
    write_scale(work / "planned.yaml", scale)
    options = ["--scale", work / "planned.yaml", "--system", SYSTEM, "--gpus", args.ngpu, "--json"]
    plan = json.loads(running.program("plan", "plan", *options))
    refuse_too_large(plan, work, args.ngpu > 0)
    for made in ("models", "data"):
        running.run(made, __file__, *args.given, "--work", work, "--make", made)
    for conf in [*scale["encoders"].values(), scale["llm_conf"]]:
        conf["path"] = folder_of(work / "models", conf["path"])
    write_scale(work / "scale.yaml", scale)
    running.all_parts(plan)
    exp, command = work / "exp", shlex.join(["tools/rehearse.py", *args.given])
    return {
        **json.loads((exp / "environment.json").read_text(encoding="utf-8")),
        "command": command,
        "measured_by_training": json.loads((exp / MEASURED).read_text(encoding="utf-8")),
        "parts": [asdict(part) for part in running.parts],
        "plan": plan,
    }


def write_scale(file: Path, scale: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump(scale, sort_keys=False), encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="paper", help="a file of conf/scale, or a path")
    parser.add_argument("--work", type=Path, help="default: a temporary folder, removed at the end")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--steps", type=int, default=3, help="updates; at least 3")
    parser.add_argument("--seconds", type=float, default=4.0, help="of the longest clip")
    parser.add_argument("--ngpu", type=int, default=0, choices=(0, 1))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokenizer", default="cache:smollm2-135m-instruct")
    parser.add_argument("--make", choices=("models", "data"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.given = sys.argv[1:] if argv is None else argv
    if args.make == "models":
        scale = load_yaml(conf_file("scale", args.scale))
        make_models(scale, args.work / "models", args.tokenizer)
    elif args.make == "data":
        make_data(args.work / "data", args.seconds)
    else:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        with tempfile.TemporaryDirectory(prefix="pam-rehearsal.") as temporary:
            found = rehearse(args, (args.work or Path(temporary)).absolute() / "rehearsal")
        if args.out:
            write_json(args.out, found)
        print(table([Part(**part) for part in found["parts"]]))


if __name__ == "__main__":
    run_main(main)
