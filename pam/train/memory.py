"""The memory of a training process: what it used, and what a plan says it will."""

import json
import resource
from collections.abc import Mapping
from pathlib import Path

from pam.atomic import write_json

MEASURED = "peak_memory.json"

# On a CPU the process itself counts too. Measured on an AMD EPYC with torch 2.12, transformers 5.23
# and ESPnet 202511: the resident size after all imports, and how much more than everything else a
# training of pam at mini scale had in the end (4650 MiB): oneDNN keeps kernels for each shape of
# batch that it has seen, up to a limit of its own, and the heap is never without holes.
LIBRARIES = 841 * 2**20
SHAPES = 2340 * 2**20


def on_cpu(parts: Mapping[str, float]) -> dict[str, float]:
    """What a process without a GPU has in memory for these parts of a plan."""
    return {"Python and libraries": LIBRARIES, **parts, "kernels and heap": SHAPES}


def peak_resident() -> int:
    """Most bytes that this process, or one that it started, had in memory."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(each).ru_maxrss for each in who) * 1024


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
