"""The LLM's prediction of each token at every depth, and the measures that exit criteria use."""

# P points of depth, L layers, N tokens, D width of the LLM, V vocabulary

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pam.llm.criteria import CRITERIA, Check
from pam.llm.depth import Depth
from pam.model.exits import ExitGate

OF_LOGITS = ("softmax", "margin", "entropy")  # criteria that only need the prediction
BLOCK = 192  # tokens whose logits are in memory at the same time


@dataclass
class Read:
    """One answer that was read with its own tokens as context (teacher forcing).

    Attributes:
        ids: the N tokens of the answer.
        id, task, cluster: of the utterance.
        states: the states at every point of depth that predict these tokens, P times [N, D].
    """

    ids: list[int]
    id: str
    task: str
    cluster: str
    states: list[Tensor]


@dataclass
class Answer:
    """What was measured on one answer; for the rest see `Read`.

    Attributes:
        top: the most probable token at every point of depth [P, N].
        scores: confidence in [0, 1] of each criterion after every layer, {name: [L, N]}.
    """

    ids: list[int]
    id: str
    task: str
    cluster: str
    top: np.ndarray
    scores: dict[str, np.ndarray]


def measure_all(depth: Depth, gate: ExitGate | None, reads: Iterable[Read]) -> Iterator[Answer]:
    """Measure answers in groups of about `BLOCK` tokens: the head is read once for each group."""
    group: list[Read] = []
    for read in reads:
        group.append(read)
        if sum(len(read.ids) for read in group) >= BLOCK:
            yield from measure_group(depth, gate, group)
            group = []
    if group:
        yield from measure_group(depth, gate, group)


def measure_group(depth: Depth, gate: ExitGate | None, group: Sequence[Read]) -> Iterator[Answer]:
    states = [torch.cat(rows) for rows in zip(*(read.states for read in group), strict=True)]
    top, scores = measure(depth, states, gate)
    start = 0
    for read in group:
        own = slice(start, start := start + len(read.ids))
        cut = {name: rows[:, own] for name, rows in scores.items()}
        yield Answer(read.ids, read.id, read.task, read.cluster, top[:, own], cut)


@torch.no_grad()
def measure(
    depth: Depth, states: Sequence[Float[Tensor, "N D"]], gate: ExitGate | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """`top` and `scores` of `Answer` from the states at L layers, or at their 2L points.

    - `softmax`, `margin`, `entropy`, `cosine`: see `pam.llm.criteria`; the cosine is 0 if negative,
      and after layer 1.
    - `gate`: the gate's probability; 0 at layers without a gate.
    """
    per_layer = len(states) // len(depth)
    top, scores = [], {name: [] for name in (*OF_LOGITS, "cosine")}
    previous = None
    for point, state in enumerate(states, 1):
        is_layer = point % per_layer == 0
        found = [predict(depth, block, is_layer) for block in state.split(BLOCK)]
        top.append(np.concatenate([tokens for tokens, _ in found]))
        if is_layer:
            for name in found[0][1]:
                scores[name].append(np.concatenate([block[name] for _, block in found]))
            cosine = CRITERIA["cosine"](Check(state, state, previous, []))
            scores["cosine"].append(cosine.clamp(min=0).float().cpu().numpy())
            previous = state
    if gate is not None:
        scores["gate"] = [
            gate_score(depth, gate, state, layer)
            for layer, state in enumerate(states[per_layer - 1 :: per_layer], 1)
        ]
    return np.stack(top), {name: np.stack(rows) for name, rows in scores.items()}


def predict(
    depth: Depth, state: Float[Tensor, "N D"], scored: bool
) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    logits_NV = depth.logits(state)
    tokens = logits_NV.argmax(-1).cpu().numpy()
    if not scored:
        return tokens, {}
    check = Check(logits_NV, state, None, [])
    scores = {name: CRITERIA[name](check) for name in OF_LOGITS}
    return tokens, {name: value.float().cpu().numpy() for name, value in scores.items()}


def gate_score(depth: Depth, gate: ExitGate, state: Float[Tensor, "N D"], layer: int) -> np.ndarray:
    if layer not in gate.layers:
        return np.zeros(len(state), np.float32)
    return gate(depth.norm(state), layer).sigmoid().float().cpu().numpy()
