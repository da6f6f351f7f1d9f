r"""What a trained model really uses: take one thing away and see what the answers cost.

Zeroed are the states h_{e,l} of a whole encoder or of a band of its layers, on their way into the
fusion; FFN_e still adds its bias. Forced is the expert: the gate is one-hot whatever the prompt
says. Measured is the loss of the development answers, on the same utterances, so that differences
are paired; their intervals resample clusters of utterances. The model was not trained to miss
anything: a rise says that it relies on what is gone, not that it could not do without.
"""

# U utterances

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pam.analysis.layers import bands
from pam.analysis.states import fuses_layers
from pam.data.scp import read_text_file
from pam.fusion.moe_audio import AudioRoutedMixture
from pam.model.speech_llm import ESPnetPaMModel
from pam.score.clusters import cluster_entry
from pam.score.significance import resampled_ratio
from pam.train.hearing import dev_batches

CERTAIN = 1e4  # a logit whose softmax is exactly 1 beside zeros
Losses = dict[str, dict[str, list]]


@contextmanager
def zeroed(model: ESPnetPaMModel, layers: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """While it lasts, the fusion gets zeros for these states of these encoders."""
    names = [shape.name for shape in model.shapes]

    def silence(_module, inputs):
        states, *rest = inputs
        states = list(states)
        for name, gone in layers.items():
            place = names.index(name)
            states[place] = states[place].clone()
            states[place][:, list(gone)] = 0
        return (states, *rest)

    handle = model.fusion.register_forward_pre_hook(silence)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def forced(model: ESPnetPaMModel, expert: int) -> Iterator[None]:
    """While it lasts, every utterance (every frame, where the audio routes) has this expert alone.

    The weight is 1, also where the router would scale it by its probability.
    """

    def one_hot(_module, inputs):
        states, lengths, gate = inputs
        only = torch.zeros_like(gate)
        only[:, expert] = 1
        return states, lengths, only

    def certain(_module, _inputs, logits):
        only = torch.zeros_like(logits)
        only[:, expert] = CERTAIN
        return only

    if isinstance(model.fusion, AudioRoutedMixture):
        handle = model.fusion.router.register_forward_hook(certain)
    else:
        handle = model.fusion.register_forward_pre_hook(one_hot)
    try:
        yield
    finally:
        handle.remove()


def ablations(model: ESPnetPaMModel) -> dict[str, dict[str, list[int]]]:
    """What to zero: each encoder, and the bands of its layers where the fusion uses them all."""
    found = {s.name: {s.name: list(range(s.num_states))} for s in model.shapes}
    if fuses_layers(model):
        for shape in model.shapes:
            for band, states in bands(shape.num_states).items():
                found[f"{shape.name} {band}"] = {shape.name: list(states)}
    return found


def num_experts(model: ESPnetPaMModel) -> int:
    """Routed experts that could be forced."""
    return len(model.fusion.experts) if fuses_layers(model) else 0


def dev_losses(
    model: ESPnetPaMModel, config: Mapping[str, Any], dev: Path, utts: int = 0
) -> Losses:
    """Per task the loss of each utterance's answer (`sums`), its `tokens` and its cluster.

    `utts`: the size of the even sample of each task, 0 for all. A batch of one is left out.
    """
    model.eval()
    found: Losses = {}
    clusters = read_text_file(dev / "utt2spk")
    if (dev / "utt2cluster").is_file():
        clusters |= read_text_file(dev / "utt2cluster")
    for ids, task, batch in dev_batches(model, config, dev, utts):
        entry = found.setdefault(task, {"sums": [], "tokens": [], "clusters": []})
        entry["clusters"] += [clusters[utt] for utt in ids]
        entry["sums"] += [round(loss, 4) for loss in model.utterance_losses(**batch).tolist()]
        entry["tokens"] += batch["text_lengths"].tolist()
    return {task: found[task] for task in config["tasks"] if task in found}


def change(base: Losses, other: Losses, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Per task the mean loss per token, and its change with a paired 95 % interval."""
    out = {}
    for task, entry in other.items():
        before_U, after_U = np.array(base[task]["sums"]), np.array(entry["sums"])
        tokens_U = np.array(entry["tokens"], dtype=np.float64)
        clusters = entry.get("clusters")
        low, high = resampled_ratio(after_U - before_U, tokens_U, clusters, seed).ci95()
        out[task] = {
            "loss": round(float(after_U.sum() / tokens_U.sum()), 4),
            "change": round(float((after_U - before_U).sum() / tokens_U.sum()), 4),
            "ci95": [round(low, 4), round(high, 4)],
            "count": len(tokens_U),
            "clusters": cluster_entry(clusters),
        }
    return out
