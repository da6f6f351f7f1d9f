"""Decode one data directory to hyp.jsonl, with Kaldi-style hyp and ref beside it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pam.atomic import write_json, write_text
from pam.data.archive import load
from pam.data.audio import SAMPLE_RATE, load_audio
from pam.data.datadir import DataDir
from pam.data.prompts import Prompts
from pam.data.scp import one_line
from pam.decode.greedy import GreedyOutput, PromptMemory, greedy
from pam.decode.utterances import (
    Utterance,
    batches,
    feature_tables,
    frame_counts,
    read_utterances,
)
from pam.encoders.pooling import dump_name
from pam.log import progress
from pam.model.speech_llm import AUDIO, FRAMES, ESPnetPaMModel

Loader = Callable[[Sequence[str]], tuple[dict[str, Tensor], dict[str, Tensor]]]


@dataclass(frozen=True)
class Settings:
    """What the answers depend on (the batch size is no part of it)."""

    prompts: str = "unseen"
    seed: int = 0
    max_new_tokens: int = 128
    maxlenratio: float = 0.5
    feats: str = "dumped"


def decode_set(
    model: ESPnetPaMModel,
    data_dir: Path,
    out: Path,
    prompts: Mapping[str, Prompts],
    settings: Settings,
    batch_size: int = 8,
    encoder_dir: Path | None = None,
) -> list[dict[str, Any]]:
    """Decode all utterances and write `out`; returns the lines of hyp.jsonl."""
    data = DataDir.read(data_dir)
    utterances = read_utterances(data, prompts, settings.prompts, settings.seed)
    loader = loader_of(model, data_dir, data, settings.feats, encoder_dir)
    start = time.monotonic()
    lines = decode_utterances(model, utterances, loader, settings, batch_size)
    write_hypotheses(out, lines)
    seconds = time.monotonic() - start
    samples = [utterance.samples for utterance in utterances]
    audio = None if None in samples else round(sum(samples) / SAMPLE_RATE, 2)
    write_json(out / "decode_seconds.json", {"decode": round(seconds, 2), "audio": audio})
    return lines


def decode_utterances(
    model: ESPnetPaMModel,
    utterances: Sequence[Utterance],
    loader: Loader,
    settings: Settings,
    batch_size: int,
) -> list[dict[str, Any]]:
    """The lines of hyp.jsonl, in the order of `utterances`."""
    lines: dict[str, dict[str, Any]] = {}
    memory = PromptMemory(model)
    groups = list(batches(utterances, batch_size))
    for group in progress(groups, len(groups), "decode"):
        features, lengths = loader([utterance.id for utterance in group])
        prompts = [utterance.prompt for utterance in group]
        answers = greedy(
            model,
            features,
            lengths,
            prompts,
            max_new_tokens=settings.max_new_tokens,
            maxlenratio=settings.maxlenratio,
            memory=memory,
        )
        for row, utterance in enumerate(group):
            lines[utterance.id] = _line(model, utterance, answers, row)
    return [lines[utterance.id] for utterance in utterances]


def loader_of(
    model: ESPnetPaMModel, data_dir: Path, data: DataDir, feats: str, encoder_dir: Path | None
) -> Loader:
    """What loads the audio of a directory, or the states that were dumped of it, for a model."""
    if feats == "online":
        return audio_loader(data)
    names = {shape.name: dump_name(shape.name, model.pools) for shape in model.shapes}
    pointers = feature_tables(data_dir, data, names.values(), encoder_dir)
    counts = frame_counts(data_dir, data, names.values(), encoder_dir) if model.pools else None
    return dumped_loader({name: pointers[folder] for name, folder in names.items()}, counts)


def dumped_loader(
    tables: Mapping[str, Mapping[str, str]], counts: Mapping[str, int] | None = None
) -> Loader:
    """Loads {encoder: [B, T, S·D]} and {encoder: [B]} from the dumped archives; of states at native
    rates also the `frames` at 25 Hz, [B], from `counts`."""

    def loader(utts: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        features, lengths = {}, {}
        for encoder, table in tables.items():
            rows = [torch.from_numpy(load(table[utt])).float() for utt in utts]
            features[encoder] = pad_sequence(rows, batch_first=True)
            lengths[encoder] = torch.tensor([len(row) for row in rows])
        if counts is not None:
            features[FRAMES] = torch.tensor([counts[utt] for utt in utts])
        return features, lengths

    return loader


def audio_loader(data: DataDir) -> Loader:
    """Loads {"speech": [B, N]} and its lengths, for a model that has its encoders loaded."""

    def loader(utts: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        clips = [torch.from_numpy(load_audio(*data.audio(utt))) for utt in utts]
        lengths = torch.tensor([len(clip) for clip in clips])
        return {AUDIO: pad_sequence(clips, batch_first=True)}, {AUDIO: lengths}

    return loader


def write_hypotheses(out: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """hyp.jsonl, atomically, and the sorted `hyp` and `ref` beside it."""
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
