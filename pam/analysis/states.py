"""Encoder states of some utterances, before and after FFN_e, for similarities and norms."""

# S hidden states of one encoder, N frames, U frames after FFN_e, C width of one encoder,
# D width of the LLM

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pam.data.datadir import DataDir
from pam.data.sample import even_places
from pam.data.utterances import Inputs, batch_of, read_inputs
from pam.fusion.adapter import AdapterFusion
from pam.model.speech_llm import ESPnetPaMModel


@dataclass
class States:
    """`raw` h_{e,l} and `mapped` f_{e,l} by encoder. `mapped` is empty if the layers are not
    used, or without FFN_e."""

    raw: dict[str, Float[np.ndarray, "_ N _"]]
    mapped: dict[str, Float[np.ndarray, "_ U _"]]

    def norms(self) -> dict[str, dict[str, list[float]]]:
        """Mean Euclidean norm of each state over the frames."""
        return {
            kind: {name: _norms(states) for name, states in found.items()}
            for kind, found in (("raw", self.raw), ("mapped", self.mapped))
        }


def _norms(states_SNC: Float[np.ndarray, "S N C"]) -> list[float]:
    return [
        round(float(np.linalg.norm(s.astype(np.float64), axis=1).mean()), 4) for s in states_SNC
    ]


def set_inputs(model: ESPnetPaMModel, data_dir: Path, feats: str) -> tuple[list[str], Inputs]:
    """The utterances of a data directory, sorted, and the model's inputs for them."""
    utts = DataDir.read(data_dir).utterances
    encoders = [shape.name for shape in model.shapes]
    return utts, read_inputs(data_dir, encoders, feats, utts)


@torch.no_grad()
def gather(
    model: ESPnetPaMModel, utterances: Sequence[str], inputs: Inputs, frames: int, clips: int
) -> States:
    """About `frames` frames of `clips` utterances, evenly spread over the list and each clip."""
    chosen = [utterances[i] for i in even_places(clips, len(utterances))]
    raw: dict[str, list[Tensor]] = {shape.name: [] for shape in model.shapes}
    mapped: dict[str, list[Tensor]] = {shape.name: [] for shape in model.shapes}
    for utt in chosen:
        states, _ = model.states(batch_of([inputs[utt]], model.device))
        wanted = -(-frames // len(chosen))
        for number, (shape, state_1STC) in enumerate(zip(model.shapes, states, strict=True)):
            raw[shape.name].append(_some(state_1STC[0], wanted))
            if maps_layers(model):
                f_SUD = model.fusion.adapters[number](state_1STC.float())[0]
                mapped[shape.name].append(_some(f_SUD, wanted))
    return States(_join(raw), _join(mapped) if maps_layers(model) else {})


def fuses_layers(model: ESPnetPaMModel) -> bool:
    """Whether the fusion uses all layers, not only the last one."""
    return model.fusion.uses_all_layers


def maps_layers(model: ESPnetPaMModel) -> bool:
    """Whether it uses them through FFN_e."""
    return fuses_layers(model) and isinstance(model.fusion, AdapterFusion)


def _some(states_STC: Float[Tensor, "S T C"], wanted: int) -> Float[Tensor, "S N C"]:
    return states_STC[:, even_places(wanted, states_STC.shape[1])].float().cpu()


def _join(parts: dict[str, list[Tensor]]) -> dict[str, np.ndarray]:
    return {name: torch.cat(found, dim=1).numpy() for name, found in parts.items()}
