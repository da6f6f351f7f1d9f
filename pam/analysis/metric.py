"""Decode and score some utterances with the model in its present state, such as an ablation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pam.analysis.states import set_inputs
from pam.data.datadir import DataDir
from pam.data.prompts import prompts_of
from pam.data.sample import even_places
from pam.data.utterances import Utterance, read_utterances
from pam.decode.decode_set import decode_utterances
from pam.decode.decoder import Decoder
from pam.decode.settings import Settings
from pam.model.speech_llm import ESPnetPaMModel
from pam.score.items import Item
from pam.score.score_set import Options, score_items


def set_metric(
    model: ESPnetPaMModel,
    data_dir: Path,
    config: Mapping[str, Any],
    settings: Settings,
    utts: int,
) -> dict[str, dict[str, Any]]:
    """Per task of a set: the metric with its value and interval, over `utts` utterances."""
    _, inputs = set_inputs(model, data_dir, settings.feats)
    chosen = some_of_each_task(data_dir, config, settings, utts)
    decoder = Decoder(model, settings)
    lines = {line["id"]: line for line in decode_utterances(decoder, chosen, inputs)}
    by_task: dict[str, list[Item]] = {}
    for utterance in chosen:
        by_task.setdefault(utterance.task, []).append(as_item(lines[utterance.id]))
    out = {}
    for task, items in by_task.items():
        score, _ = score_items(task, items, Options(seed=settings.seed))
        kept = ("metric", "value", "ci95", "count", "clusters")
        out[task] = {key: score[key] for key in kept}
    return out


def some_of_each_task(
    data_dir: Path, config: Mapping[str, Any], settings: Settings, utts: int
) -> list[Utterance]:
    data = DataDir.read(data_dir)
    prompts = prompts_of(config, sorted(set(data["utt2task"].values())))
    by_task: dict[str, list[Utterance]] = {}
    for utterance in read_utterances(data, prompts, settings.prompts, settings.seed):
        by_task.setdefault(utterance.task, []).append(utterance)
    return [found[i] for found in by_task.values() for i in even_places(utts, len(found))]


def as_item(line: Mapping[str, Any]) -> Item:
    known = {key: line[key] for key in Item.__dataclass_fields__ if key in line}
    return Item(**{**known, "refs": tuple(line["refs"])})
