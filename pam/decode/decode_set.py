"""Decode one data directory to hyp.jsonl, and to Kaldi-style files `hyp` and `ref`.

Several jobs share a set. Each decodes a part of the utterances to .parts/I-N.json. The job that
finds all N parts joins them. A job whose part exists does nothing. A part's `key` identifies its
settings: parts with different keys are never joined.
"""

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pam.atomic import write_json, write_text
from pam.data.audio import SAMPLE_RATE
from pam.data.datadir import DataDir
from pam.data.prompts import Prompts
from pam.data.scp import one_line
from pam.data.utterances import Inputs, Utterance, pad, read_inputs, read_utterances
from pam.decode.checks import checked, no_speech_of
from pam.decode.exact import ExactMemory, greedy_exact
from pam.decode.greedy import GreedyOutput, PromptMemory, greedy
from pam.decode.settings import Settings
from pam.errors import UserError
from pam.log import progress
from pam.model.speech_llm import ESPnetPaMModel

PARTS = ".parts"


@dataclass(frozen=True)
class Share:
    """Part `number` of `jobs` parts of every set."""

    number: int = 1
    jobs: int = 1

    def of(self, utterances: Sequence[Utterance]) -> list[Utterance]:
        """Every N-th utterance in order of length, so that all parts take equally long."""
        ordered = sorted(utterances, key=lambda utterance: -(utterance.samples or 0))
        return ordered[self.number - 1 :: self.jobs]

    def files(self, out: Path) -> list[Path]:
        return [out / PARTS / f"{number}-{self.jobs}.json" for number in range(1, self.jobs + 1)]

    def file(self, out: Path) -> Path:
        return self.files(out)[self.number - 1]


def decode_part(
    model: ESPnetPaMModel,
    data_dir: Path,
    out: Path,
    prompts: Mapping[str, Prompts],
    settings: Settings,
    key: str,
    share: Share = Share(),
    encoder_dir: Path | None = None,
) -> None:
    """Decode this job's part of a set; `join` then writes `out`/hyp.jsonl from all parts."""
    data = DataDir.read(data_dir)
    utterances = share.of(read_utterances(data, prompts, settings.prompts, settings.seed))
    encoders = [shape.name for shape in model.shapes]
    inputs = read_inputs(data_dir, encoders, settings.feats, data["text"], encoder_dir)
    start = time.monotonic()
    skip = settings.skip_silence
    scores = {u.id: no_speech_of(data, u.id, needed=skip is not None) for u in utterances}
    lines = decode_utterances(model, utterances, inputs, settings)
    lines = [checked(line, scores[line["id"]], skip) for line in lines]
    seconds = time.monotonic() - start
    samples = [utterance.samples for utterance in utterances]
    audio = None if None in samples else sum(samples) / SAMPLE_RATE
    part = {"key": key, "lines": lines, "decode": seconds, "audio": audio}
    write_json(share.file(out), part)


def has_part(out: Path, share: Share, key: str) -> bool:
    """Whether this job's part is complete and has the same key."""
    return read_part(share.file(out), key) is not None


def read_part(file: Path, key: str) -> dict[str, Any] | None:
    """A part; None if it is missing or damaged, or has another key."""
    try:
        part = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return part if part["key"] == key else None


def join(out: Path, share: Share, key: str, done: Callable[[float], None]) -> int | None:
    """If all parts exist, write the files of the decoded set, then call `done` with the seconds of
    the slowest job.

    Returns the number of utterances; None if parts are missing or another job has joined them.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        parts = [read_part(file, key) for file in share.files(out)]
        if None in parts:
            return None
        lines = [line for part in parts for line in part["lines"]]
        write_hypotheses(out, sorted(lines, key=lambda line: line["id"]))
        audio = [part["audio"] for part in parts]
        total = None if None in audio else round(sum(audio), 2)
        seconds = round(sum(part["decode"] for part in parts), 2)
        write_json(out / "decode_seconds.json", {"decode": seconds, "audio": total})
        done(max(part["decode"] for part in parts))
        shutil.rmtree(out / PARTS)
    return len(lines)


def decode_utterances(
    model: ESPnetPaMModel,
    utterances: Sequence[Utterance],
    inputs: Inputs,
    settings: Settings,
) -> list[dict[str, Any]]:
    """The lines of hyp.jsonl, in the order of `utterances`."""
    lines: dict[str, dict[str, Any]] = {}
    memory = ExactMemory(model) if settings.exact else PromptMemory(model)
    options = {
        "max_new_tokens": settings.max_new_tokens,
        "max_tokens_per_second": settings.max_tokens_per_second,
        "memory": memory,
    }
    groups = list(batches(utterances, settings.batch_size))
    for group in progress(groups, len(groups), "decode"):
        prompts = [utterance.prompt for utterance in group]
        if settings.exact:
            clips = (pad([inputs[utterance.id]]) for utterance in group)
            answers = greedy_exact(model, clips, prompts, **options)
        else:
            batch = pad([inputs[utterance.id] for utterance in group])
            answers = greedy(model, *batch, prompts, **options)
        for row, utterance in enumerate(group):
            lines[utterance.id] = _line(model, utterance, answers, row)
    return [lines[utterance.id] for utterance in utterances]


def batches(utterances: Sequence[Utterance], size: int) -> Iterator[list[Utterance]]:
    """Batches of similar length, the longest first: too little memory shows at once."""
    if size < 1:
        raise UserError(f"batch_size {size}: must be at least 1")
    ordered = sorted(utterances, key=lambda utterance: -(utterance.samples or 0))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def write_hypotheses(out: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write hyp.jsonl, `hyp` and `ref`, each atomically."""
    for name in ("hyp", "ref"):
        texts = [f"{line['id']} {one_line(line[name])}".rstrip() for line in lines]
        write_text(out / name, "".join(f"{text}\n" for text in texts))
    dumped = [json.dumps(line, ensure_ascii=False) for line in lines]
    write_text(out / "hyp.jsonl", "".join(f"{line}\n" for line in dumped))


def _line(
    model: ESPnetPaMModel, utterance: Utterance, answers: GreedyOutput, row: int
) -> dict[str, Any]:
    routed = answers.experts is not None
    expert = answers.experts[row] if routed else None
    line = {
        "id": utterance.id,
        "task": utterance.task,
        "prompt": utterance.prompt,
        "prompt_seen": utterance.prompt_seen,
        "expert": model.experts[expert] if routed else None,
        "posterior": round(float(answers.posteriors[row, expert]), 6) if routed else None,
        "hyp": answers.texts[row],
        "ref": utterance.refs[0],
        "refs": list(utterance.refs),
        "cluster": utterance.cluster,
    }
    if utterance.experts:
        line["experts"] = sorted(utterance.experts)
    return line | {"choices": utterance.choices} if utterance.choices else line
