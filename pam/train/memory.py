"""The most memory that a training process used."""

import json
import resource
from pathlib import Path

from pam.atomic import write_json

MEASURED = "peak_memory.json"


def peak_resident() -> int:
    """Most bytes that this process, or one that it started, had in memory (Linux).

    Of this one by VmHWM: its ru_maxrss counts what the process that started it had in memory, too.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    own = int(status.split("VmHWM:")[1].split()[0])
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024


def write_peak(exp: Path, gpus: int) -> None:
    """exp/NAME/peak_memory.json: the largest resident size of any process of this experiment, and
    of a single GPU its allocations (several GPUs are used by processes of ESPnet's own)."""
    import torch

    file = exp / MEASURED
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    now = {"resident_bytes": peak_resident()}
    if gpus == 1:
        now["gpu_bytes"] = torch.cuda.max_memory_allocated()
    write_json(file, {"gpus": gpus} | {k: max(v, before.get(k, 0)) for k, v in now.items()})
