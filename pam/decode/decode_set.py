"""Decode one data directory to hyp.jsonl, and to Kaldi-style files `hyp` and `ref`.

Several jobs share a set. Each decodes a part of the utterances to .parts/I-N.json. The job that
finds all N parts joins them. A job whose part exists does nothing. A part's `key` identifies its
settings: parts with different keys are never joined.
"""

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pam.atomic import complete_lines, write_json, write_text
from pam.data.datadir import DataDir
from pam.data.prompts import Prompts
from pam.data.scp import one_line
from pam.data.utterances import Inputs, Utterance, read_inputs, read_utterances
from pam.decode.checks import checked, no_speech_of
from pam.decode.chunks import in_chunks
from pam.decode.decoder import Decoder
from pam.decode.request import Answered, Request
from pam.log import get_logger, progress
from pam.model.speech_llm import ESPnetPaMModel
from pam.rate import SAMPLE_RATE

logger = get_logger(__name__)
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
    decoder: Decoder,
    data_dir: Path,
    out: Path,
    prompts: Mapping[str, Prompts],
    key: str,
    share: Share = Share(),
    encoder_dir: Path | None = None,
) -> None:
    """Decode this job's part of a set; `join` then writes `out`/hyp.jsonl from all parts.

    The part grows by one line for each answer. A job that was killed continues it.
    """
    data, settings = DataDir.read(data_dir), decoder.settings
    utterances = share.of(read_utterances(data, prompts, settings.prompts, settings.seed))
    encoders = [shape.name for shape in decoder.model.shapes]
    inputs = read_inputs(data_dir, encoders, settings.feats, data["text"], encoder_dir)
    skip = settings.skip_silence
    samples = [utterance.samples for utterance in utterances]
    audio = None if None in samples else sum(samples) / SAMPLE_RATE
    part = Part.open(share.file(out), key, len(utterances), audio)
    start = time.monotonic() - part.seconds
    for line in decode_utterances(decoder, utterances, inputs, part.lines):
        score = no_speech_of(data, line["id"], needed=skip is not None)
        line = checked(line, score, skip)
        part.append(line, time.monotonic() - start)


@dataclass
class Part:
    """The answers of a job so far, in a file that grows.

    Its first line has the `key`, the number of `utterances`, and their seconds of `audio`. Every
    further line has an answer, and the seconds until then.
    """

    file: Path
    key: str
    utterances: int
    audio: float | None
    seconds: float = 0.0
    lines: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path, key: str) -> "Part | None":
        """A part; None if it is missing, or has another key. A line cut short is left out."""
        try:
            first, *rest = complete_lines(file)
            part = cls(file, **json.loads(first))
        except (OSError, ValueError, TypeError):
            return None
        for line in rest:
            answer = json.loads(line)
            part.seconds = answer["seconds"]
            part.lines[answer["line"]["id"]] = answer["line"]
        return part if part.key == key else None

    @classmethod
    def open(cls, file: Path, key: str, utterances: int, audio: float | None) -> "Part":
        """The part so far, or a new one."""
        part = cls.read(file, key) or cls(file, key, utterances, audio)
        head = {"key": key, "utterances": utterances, "audio": audio}
        answers = [{"seconds": part.seconds, "line": line} for line in part.lines.values()]
        write_text(file, "".join(f"{dumped(entry)}\n" for entry in (head, *answers)))
        return part

    def append(self, line: dict[str, Any], seconds: float) -> None:
        self.lines[line["id"]], self.seconds = line, seconds
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(f"{dumped({'seconds': seconds, 'line': line})}\n")

    @property
    def complete(self) -> bool:
        return len(self.lines) == self.utterances


def dumped(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False)


def has_part(out: Path, share: Share, key: str) -> bool:
    """Whether this job's part is complete and has the same key."""
    part = Part.read(share.file(out), key)
    return part is not None and part.complete


def join(out: Path, share: Share, key: str, done: Callable[[float], None]) -> int | None:
    """If all parts exist, write the files of the decoded set, then call `done` with the seconds of
    the slowest job.

    Returns the number of utterances; None if parts are missing or another job has joined them.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        parts = [Part.read(file, key) for file in share.files(out)]
        if not all(part is not None and part.complete for part in parts):
            return None
        lines = [line for part in parts for line in part.lines.values()]
        write_hypotheses(out, sorted(lines, key=lambda line: line["id"]))
        audio = [part.audio for part in parts]
        total = None if None in audio else round(sum(audio), 2)
        seconds = round(sum(part.seconds for part in parts), 2)
        write_json(out / "decode_seconds.json", {"decode": seconds, "audio": total})
        done(max(part.seconds for part in parts))
        shutil.rmtree(out / PARTS)
    return len(lines)


def decode_utterances(
    decoder: Decoder,
    utterances: Sequence[Utterance],
    inputs: Inputs,
    done: Collection[str] = (),
) -> Iterator[dict[str, Any]]:
    """Yield the lines of hyp.jsonl in any order; without the utterances `done`, if possible.

    The longest come first, so that too little memory shows at once.
    """
    settings = decoder.settings
    ordered = sorted(utterances, key=lambda utterance: -(utterance.samples or 0))
    if settings.exact:
        ordered = [utterance for utterance in ordered if utterance.id not in done]
    else:  # answers depend on their batch, so batches stay the same
        batches = [*in_chunks(ordered, settings.batch_size)]
        ordered = [u for batch in batches if not {u.id for u in batch} <= {*done} for u in batch]
    requests = (
        Request(
            utterance,
            utterance.prompt,
            partial(inputs.__getitem__, utterance.id),
            settings.max_new_tokens,
            settings.max_tokens_per_second,
            utterance.id,
        )
        for utterance in ordered
    )
    cut = 0
    for answer in progress(decoder.answers(requests), len(ordered), "decode"):
        cut += not answer.complete
        yield line_of(decoder.model, answer)
    if cut:
        limits = settings.max_new_tokens, settings.max_tokens_per_second
        what = "%d of %d answers are cut: --max_new_tokens %d, --max_tokens_per_second %g"
        logger.info(what, cut, len(ordered), *limits)


def write_hypotheses(out: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write hyp.jsonl, `hyp` and `ref`, each atomically."""
    for name in ("hyp", "ref"):
        texts = [f"{line['id']} {one_line(line[name])}".rstrip() for line in lines]
        write_text(out / name, "".join(f"{text}\n" for text in texts))
    write_text(out / "hyp.jsonl", "".join(f"{dumped(line)}\n" for line in lines))


def line_of(model: ESPnetPaMModel, answer: Answered) -> dict[str, Any]:
    """The line of hyp.jsonl for the answer to an utterance, its key."""
    utterance, routed = answer.key, answer.expert is not None
    line = {
        "id": utterance.id,
        "task": utterance.task,
        "prompt": utterance.prompt,
        "prompt_seen": utterance.prompt_seen,
        "expert": model.experts[answer.expert] if routed else None,
        "posterior": round(float(answer.posterior[answer.expert]), 6) if routed else None,
        "hyp": answer.text,
        "logprob": round(answer.logprob, 4),
        "ref": utterance.refs[0],
        "refs": list(utterance.refs),
        "cluster": utterance.cluster,
    }
    if answer.exits:
        line |= {"exits": answer.exits, "layers": answer.layers}
    if utterance.experts:
        line["experts"] = sorted(utterance.experts)
    return line | {"choices": utterance.choices} if utterance.choices else line
