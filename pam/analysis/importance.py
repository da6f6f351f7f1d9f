r"""Ablations: which encoders, layers and experts does a trained model use?

Zeroing replaces the states h_{e,l} of an encoder, or of a band of its layers, by zeros: before the
fusion, or, if an adapter standardises them, after that, so that a state becomes its mean over the
training frames. FFN_e still adds its bias. Forcing makes the gate one-hot for one expert,
independent of the prompt. The result is the change of the loss of the development answers. It is
paired over the same utterances, and its intervals resample clusters of utterances.

The model was not trained with missing states. A rise of the loss shows that it relies on them, not
that a model trained without them would be worse.
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

CERTAIN = 1e4  # logit whose softmax is exactly 1 if all other logits are 0
Losses = dict[str, dict[str, list]]


@contextmanager
def zeroed(model: ESPnetPaMModel, layers: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """Context in which these states of these encoders are zeros; standardised ones are zeros after
    they were standardised."""
    names = [shape.name for shape in model.shapes]
    gone = {names.index(name): list(states) for name, states in layers.items()}
    adapters = getattr(model.fusion, "adapters", [])
    scales = {n: a.scale for n, a in enumerate(adapters) if n in gone and a.scale is not None}

    def silence(_module, inputs):
        states, *rest = inputs
        states = list(states)
        for place in gone.keys() - scales.keys():
            states[place] = states[place].clone()
            states[place][:, gone[place]] = 0
        return (states, *rest)

    handle = model.fusion.register_forward_pre_hook(silence)
    for place, scale in scales.items():
        adapters[place].scale = scale.clone()
        adapters[place].scale[gone[place]] = 0
    try:
        yield
    finally:
        handle.remove()
        for place, scale in scales.items():
            adapters[place].scale = scale


@contextmanager
def forced(model: ESPnetPaMModel, expert: int) -> Iterator[None]:
    """Context in which every utterance uses only this expert (every frame, if the audio routes).

    Its weight is 1, even if the router scales experts by their probability.
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
    """The states to zero: each encoder, and its bands of layers if the fusion uses all layers."""
    found = {s.name: {s.name: list(range(s.num_states))} for s in model.shapes}
    if fuses_layers(model):
        for shape in model.shapes:
            for band, states in bands(shape.num_states).items():
                found[f"{shape.name} {band}"] = {shape.name: list(states)}
    return found


def num_experts(model: ESPnetPaMModel) -> int:
    """The number of routed experts that can be forced."""
    return len(getattr(model.fusion, "experts", ()))


def dev_losses(
    model: ESPnetPaMModel, config: Mapping[str, Any], dev: Path, utts: int = 0
) -> Losses:
    """Per task: the loss of each utterance's answer (`sums`), its `tokens` and its cluster.

    `utts`: number of utterances of each task, evenly spread over the directory; 0: all. Batches of
    one utterance are left out.
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
    """Per task: the mean loss per token, and its change with a paired 95 % interval."""
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
