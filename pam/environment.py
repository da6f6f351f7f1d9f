"""The environment of a result: command, commit, machine and versions."""

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "transformers", "espnet", "peft", "jiwer", "nltk")
COMMAND_VARIABLE = "PAM_COMMAND"  # the recipe's own command line


def commit() -> str | None:
    """The commit of the source, with "-dirty" if files differ from it; None outside git.

    Results that recipes keep in the repository do not count as source.
    """
    head = _git("rev-parse", "HEAD") if (ROOT / ".git").exists() else None
    if not head:
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!egs/*/RESULTS/*")
    return f"{head}-dirty" if changed else head


def versions() -> dict[str, str | None]:
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def machine() -> str:
    """CPU model, cores, memory, and the GPUs of a program that uses torch."""
    cpu = _first("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    memory = _first("/proc/meminfo", "MemTotal")
    gib = f"{int(memory.split()[0]) / 2**20:.0f} GiB RAM" if memory else "RAM unknown"
    gpus = [_gpus()] if "torch" in sys.modules else []  # the import takes seconds
    return ", ".join([cpu, f"{os.cpu_count()} cores", gib, *gpus])


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def environment() -> Mapping[str, str | None]:
    """The recipe's command, the commit, the date, the machine and the versions."""
    return {
        "command": os.environ.get(COMMAND_VARIABLE),
        "commit": commit(),
        "date": now(),
        "machine": machine(),
        **versions(),
    }


def _gpus() -> str:
    import torch

    count = torch.cuda.device_count()
    return f"{count} × {torch.cuda.get_device_name(0)}" if count else "no GPU"


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", ROOT, *args], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _first(path: str, key: str) -> str | None:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), None)
