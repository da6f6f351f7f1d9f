"""The memory of a training process: what it used, and what a plan says it will."""

import json
import math
import resource
from collections.abc import Mapping
from pathlib import Path

from pam.atomic import write_json

MEASURED = "peak_memory.json"

# On a CPU the process itself counts too. Measured on an AMD EPYC with glibc 2.36, torch 2.12,
# transformers 5.23 and ESPnet 202511: the resident size after all imports (MiB), and the growth of
# the heap. Every batch has a shape of its own: its tensors leave holes between those that stay, and
# oneDNN keeps a kernel for each shape that it has seen. That grows less than the batch does: about
# as the square root of the largest batch's activations, `HOLES` where those are 1 GiB, and half of
# it after `HALF` steps. Fitted to trainings at mini scale of eight systems and of single_whisper
# with half and twice the batch: 2.8 to 4.7 GiB, all within 10 %.
LIBRARIES = 841 * 2**20
HOLES = 2060 * 2**20
HALF = 32
ACTIVATIONS = ("LLM activations", "LM head", "fusion activations", "encoder states")


def on_cpu(parts: Mapping[str, float], steps: float = math.inf) -> dict[str, float]:
    """What a process without a GPU has in memory for these parts of a plan, after `steps`."""
    activations = sum(parts[name] for name in ACTIVATIONS)
    holes = HOLES * math.sqrt(activations / 2**30) / (1 + HALF / steps)
    return {"Python and libraries": LIBRARIES, **parts, "kernels and holes of the heap": holes}


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
