"""Real training steps on random data of the largest batch: what they take.

Encoders, LLM and fusion are those of the configuration, with their weights; the optimizer is AdamW;
audio or states are noise, answers are random tokens, prompts are those of training. So a step has
the shapes of the longest batch of a training, and no corpus is needed.
"""

import re
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pam.data.prompts import banks_of, prompts_of
from pam.data.utterances import AUDIO
from pam.device import allow_tf32
from pam.errors import PamError
from pam.model.build import build_model
from pam.model.speech_llm import ESPnetPaMModel
from pam.rate import FRAMES_PER_SECOND, SAMPLE_RATE
from pam.train.collate import Collate
from pam.train.iterators import Batch, Step, loader
from pam.train.memory import peak_resident
from pam.train.plan import Batch as Shape
from pam.train.plan import largest_batch

STEPS = 3  # the first allocates the optimizer's state


@dataclass(frozen=True)
class Trial:
    """What a step took: peak bytes (allocated on the GPU, or resident), and seconds."""

    peak: int
    seconds: float


class Noise:
    """A training set of random utterances, all as long as `shape` says."""

    def __init__(self, model: ESPnetPaMModel, shape: Shape, online: bool):
        self.model, self.shape, self.online = model, shape, online

    def __getitem__(self, utt: str) -> dict[str, Tensor]:
        numbers = {"text": torch.tensor(self.answer_ids(utt)), "task": torch.tensor(0)}
        frames = self.shape.frames
        if self.online:
            samples = frames * SAMPLE_RATE // FRAMES_PER_SECOND
            return numbers | {AUDIO: 0.1 * torch.randn(samples)}
        states = {s.name: torch.randn(frames, s.num_states * s.dim) for s in self.model.shapes}
        return numbers | states

    def answer_ids(self, _utt: str) -> list[int]:
        return torch.randint(len(self.model.llm.embeddings), (self.shape.answer,)).tolist()


def run_trial(config: Mapping[str, Any], device: str, limit: int | None = None) -> Trial | None:
    """Train `STEPS` steps with the largest batch of `config` in this process; None if the memory
    does not suffice. `limit`: bytes that the process may allocate on a CPU."""
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    try:
        seconds = train(config, device)
    except (MemoryError, RuntimeError, PamError) as error:
        if not isinstance(error, MemoryError) and not re.search("memory|ALLOC_FAILED", str(error)):
            raise
        return None
    peak = peak_resident() if device == "cpu" else torch.cuda.max_memory_allocated()
    return Trial(peak, seconds)


def train(config: Mapping[str, Any], device: str) -> float:
    """Seconds of the last step."""
    if device != "cpu":
        allow_tf32()  # as training does
    online, shape = config["feats"] == "online", largest_batch(config, 1)
    model = build_model(config, online).to(device).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, fused=True)
    utts = [f"utt{row}" for row in range(shape.rows)]
    steps = [Step(Batch(utts, number), utts, 1, 0, 1) for number in range(STEPS)]
    banks = banks_of(config, seed=0)
    model.keep_prompts(banks)
    counts = config["prompts_per_batch"], config["router_prompts"]
    collate = Collate(model.llm, prompts_of(config), *counts, banks, seed=0)
    for _, batch in loader(Noise(model, shape, online), steps, collate):
        start = time.monotonic()
        loss, _, _ = model(**{name: value.to(device) for name, value in batch.items()})
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds = time.monotonic() - start
    return seconds
