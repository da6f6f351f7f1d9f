"""The memory that is free, and the peak memory of a training process."""

import json
import resource
from pathlib import Path

from pam.atomic import write_json

MEASURED = "peak_memory.json"
GIB = 2**30


def peak_resident() -> int:
    """Peak resident bytes of this process or of a process that it started (Linux).

    For this process it is VmHWM, because ru_maxrss includes the memory of its parent process.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    own = int(status.split("VmHWM:")[1].split()[0])
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024


def available() -> int:
    """Bytes of memory that programs may take now (Linux)."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def write_peak(exp: Path, gpus: int) -> None:
    """Write exp/NAME/peak_memory.json: the peak resident size of this process, the first of them,
    and the peak allocation of its GPU."""
    import torch

    file = exp / MEASURED
    before = _read(file)
    now = {"resident_bytes": peak_resident()}
    if gpus:
        now["gpu_bytes"] = torch.cuda.max_memory_allocated()
    write_json(file, {"gpus": gpus} | {k: max(v, before.get(k, 0)) for k, v in now.items()})


def _read(file: Path) -> dict[str, int]:
    """Nothing for a damaged file: a training that has ended must not fail for it."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
