"""What training prints about its speed: a line every `log_interval` batches, totals of a phase.

`egs/multitask/README.md` explains the line. Its values are scalars of TensorBoard too (`speed/…`).
None of them enters ESPnet's statistics, which a resumed training must repeat bit for bit.
"""

# B rows of a batch

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from espnet2.torch_utils.device_funcs import to_device
from espnet2.train.trainer import TrainerOptions
from torch import Tensor

from pam.atomic import write_json
from pam.config import load_yaml
from pam.errors import PamError
from pam.llm.causal_lm import cheapest_split
from pam.log import get_logger, progress_bar, remaining
from pam.model.speech_llm import ESPnetPaMModel
from pam.rate import FRAMES_PER_SECOND
from pam.train.flops import StepFlops, frames_of, peak_flops, training_flops
from pam.train.memory import peak_resident
from pam.train.processes import gathered, is_first, world

logger = get_logger(__name__)

FILE = "speed.json"  # in exp/NAME/warmup and exp/NAME/train
SPEEDS = {"batches": "batches", "audio": "audio_seconds", "tokens": "tokens"}
PADDED = {
    "audio": ("audio",),
    "prompt": ("prompt",),
    "answer": ("answer",),
    "llm": ("prompt", "answer"),
}
MEANS = ("batches", "seconds", "waited")  # over processes; the other counts are summed


def counts_of(batch: Mapping[str, Tensor], model: torch.nn.Module) -> Counter:
    """Counts of a batch: audio seconds, answer tokens, and real and computed positions.

    Positions: the encoders' frames (`audio`); prompts (`prompt`); audio features and answers, which
    the LLM reads together (`answer`). A row that a process only computes to take part in the step
    (`Step.rows`) is padding.
    """
    frames, answers = [round(n) for n in frames_of(batch)], batch["text_lengths"].tolist()
    found = Counter(audio_seconds=sum(frames) / FRAMES_PER_SECOND, tokens=sum(answers))
    found.update(positions("audio", [frames]))
    if isinstance(model, ESPnetPaMModel):  # in the warm-up the LLM reads nothing
        features = model.fusion.output_lengths(torch.tensor(frames)).tolist()
        closing = len(model.llm.template.closing)
        rows = [a + closing + b - 1 for a, b in zip(features, answers, strict=True)]
        found.update(positions("answer", [rows]))
        found.update(positions("prompt", passes(batch["prompt_lengths"].tolist(), model)))
    if not batch["counts"][0, 1]:  # utterances that count
        found = Counter({k: n if k.endswith("_computed") else 0 for k, n in found.items()})
    return found


def positions(name: str, passes: Sequence[Sequence[int]]) -> dict[str, int]:
    """Real positions and computed ones, from the lengths of the rows of each pass."""
    computed = sum(len(rows) * max(rows) for rows in passes)
    return {f"{name}_real": sum(map(sum, passes)), f"{name}_computed": computed}


def passes(prompts: Sequence[int], model: ESPnetPaMModel) -> list[Sequence[int]]:
    """The lengths of the prompts of each pass of the LLM; with a bank of prompts there is none."""
    if model.bank is not None and model.training:
        return []
    with model.autocast():
        if not model.llm.reads_prompts_apart():
            return [prompts]
    prompts = sorted(prompts)
    cut = cheapest_split(prompts)[0]
    return [part for part in (prompts[:cut], prompts[cut:]) if part]


def rates_of(totals: Mapping[str, float]) -> dict[str, float]:
    """Speeds for each second, and shares from 0 to 1."""
    rates = {f"{name}_per_second": totals[of] / totals["seconds"] for name, of in SPEEDS.items()}
    rates["data_wait"] = totals["waited"] / totals["seconds"]
    for name, parts in PADDED.items():
        if computed := sum(totals.get(f"{part}_computed", 0) for part in parts):
            real = sum(totals[f"{part}_real"] for part in parts)
            rates[f"{name}_padding"] = 1 - real / computed
    if "peak_flops" in totals:
        rates["mfu"] = totals["flops"] / totals["peak_flops"]
    return rates


class Utilization:
    """Counts FLOPs for MFU, on a GPU whose peak is known and in the training through the LLM."""

    def __init__(self, phase: str, pam_config: str, gpu: str | None):
        self.peak = peak_flops(gpu) if gpu and phase == "llm" else None
        self.step: StepFlops | None = None
        if self.peak:
            try:
                self.step = training_flops(load_yaml(pam_config))
            except PamError as error:
                logger.warning("MFU is not measured: %s", error)

    def of(self, batch: Mapping[str, Tensor], seconds: float) -> dict[str, float]:
        """FLOPs of a batch, and what the GPU could have computed in `seconds`."""
        if self.step is None:
            return {}
        useful = self.step.of_batch(batch) if batch["counts"][0, 1] else 0
        return {"flops": useful, "peak_flops": self.peak * seconds}


class Meter:
    """Measures a phase.

    Args:
        phase: its name in the line.
        total: batches of all epochs.
        folder: of ESPnet's output; it gets `speed.json`, with what earlier runs measured.
        utilization: counts FLOPs.
    """

    def __init__(self, phase: str, total: int, folder: Path, utilization: Utilization):
        self.phase, self.total, self.folder = phase, total, folder
        self.utilization = utilization
        self.began, self.done = time.perf_counter(), 0

    def watch(
        self,
        iterator: Iterable[tuple[list[str], dict[str, Tensor]]],
        model: torch.nn.Module,
        options: "MeteredOptions",
        reporter: Any,
        writer: Any,
    ) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
        """Yield the batches of an epoch, on the GPU if one is used. ESPnet has finished a batch
        when it asks for the next one, and has printed its own line then."""
        before, found = reporter.get_total_count(), Counter()
        with progress_bar(self.total, self.phase, before) as bar:
            start = time.perf_counter()
            for number, (utts, batch) in enumerate(iterator, 1):
                waited = time.perf_counter() - start
                measured = counts_of(batch, model)
                # Memory of the loader is pinned, so the copy does not stop this process.
                yield utts, to_device(batch, "cuda", non_blocking=True) if options.ngpu else batch
                now = time.perf_counter()
                found.update(measured)
                found.update(self.utilization.of(batch, now - start))
                found.update(batches=1, seconds=now - start, waited=waited)
                start, self.done = now, self.done + 1
                bar.update()
                if number % options.log_interval == 0:
                    self.report(found, before + number, options, writer)
                    found = Counter()
                    start = time.perf_counter()
        if found:
            self.report(found, before + number, options, writer)

    def report(self, found: Counter, count: int, options: "MeteredOptions", writer: Any) -> None:
        """Log one interval, and add it to the totals. All processes must call this."""
        found, first = sum_of_processes(found)
        if not first:
            return
        rates = rates_of(found) | {"peak_gib": peak_bytes(options.ngpu) / 2**30}
        eta = remaining(time.perf_counter() - self.began, self.done, self.total - count)
        shown = ", ".join(f"{name}={value:.3g}" for name, value in rates.items())
        logger.info("%s: batch %d of %d, ETA %s: %s", self.phase, count, self.total, eta, shown)
        scalars = {f"speed/{name}": value for name, value in rates.items()}
        if writer is not None:
            for name, value in scalars.items():
                writer.add_scalar(name, value, count)
        if options.use_wandb:
            import wandb

            wandb.log({**scalars, "iteration": count})
        self.add(found)

    def add(self, found: Counter) -> None:
        """Add to the totals on disk. Batches that a killed run made twice count twice."""
        file = self.folder / FILE
        old = json.loads(file.read_text(encoding="utf-8"))["totals"] if file.is_file() else {}
        totals = Counter(old)
        totals.update(found)
        write_json(file, {**rates_of(totals), "totals": dict(totals)})


def sum_of_processes(found: Counter) -> tuple[Counter, bool]:
    """Counts of all processes together, times and batches as their mean; whether this is the
    first process. What one of them did not count, such as the FLOPs of an unknown GPU, is left out.
    """
    if world() == 1:
        return found, True
    every = gathered([dict(found)])
    names = set.intersection(*map(set, every))
    summed = {name: sum(one[name] for one in every) for name in sorted(names)}
    means = {name: summed[name] / len(every) for name in MEANS}
    return Counter(summed | means), is_first()


def peak_bytes(ngpu: int) -> int:
    """Peak memory of this process: allocated on its GPU, or resident."""
    return torch.cuda.max_memory_allocated() if ngpu else peak_resident()


@dataclass
class MeteredOptions(TrainerOptions):
    """ESPnet's options of a phase, with its meter."""

    meter: Meter


def metered(options: TrainerOptions, args: Any) -> MeteredOptions:
    """The options, with a meter for the phase. `args`: those of the task."""
    gpu = torch.cuda.get_device_name() if args.ngpu else None
    utilization = Utilization(args.phase, args.pam_config, gpu)
    meter = Meter(args.phase, args.total_steps, Path(options.output_dir), utilization)
    return MeteredOptions(**vars(options), meter=meter)
