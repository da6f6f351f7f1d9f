"""Figures of early exit over the answers of a set, with 95 % intervals over clusters.

Every figure is a ratio of sums over utterances, written as [value, low, high]. Shares are in
percent, layers are counted from 1.
"""

# P points of depth, L layers, N tokens of all answers

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pam.exits import policies
from pam.exits.cost import STATES_ONLY, Cost
from pam.exits.measure import Answer
from pam.exits.tokens import FREQUENCIES, KINDS, POSITIONS
from pam.score.clusters import cluster_entry
from pam.score.significance import ci95

DIGITS = 3
GATE = 0.5  # the threshold of a gate that is trained to estimate a probability


class Summary:
    """The tokens of all answers of a set as arrays.

    `classes`: of every answer and each way to divide tokens, the class of each token or None.
    """

    def __init__(
        self,
        answers: Sequence[Answer],
        classes: Mapping[str, Sequence[Sequence[str | None]]],
        cost: Cost,
        gate_layers: Sequence[int] = (),
    ):
        self.answers, self.cost, self.gate_layers = answers, cost, list(gate_layers)
        self.ids = np.concatenate([answer.ids for answer in answers])
        self.top_PN = np.concatenate([answer.top for answer in answers], axis=1)
        self.per_layer = len(self.top_PN) // cost.layers
        self.top_LN = self.top_PN[self.per_layer - 1 :: self.per_layer]
        names = answers[0].scores
        self.scores = {n: np.concatenate([a.scores[n] for a in answers], axis=1) for n in names}
        self.classes = {
            name: np.array([c for row in rows for c in row], dtype=object)
            for name, rows in classes.items()
        }
        self.of = np.repeat(np.arange(len(answers)), [len(answer.ids) for answer in answers])
        self.clusters = [answer.cluster for answer in answers]
        self.agrees_PN = self.top_PN == self.top_PN[-1]
        self.agrees_LN = self.top_LN == self.top_LN[-1]
        self.oracle = policies.oracle(self.agrees_LN)
        self.stable = policies.stable_oracle(self.agrees_LN)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Of the tokens of every utterance."""
        return np.bincount(self.of, weights=values, minlength=len(self.answers))

    def mean(self, values: np.ndarray, scale: float, among=None) -> list[float]:
        """[value, low, high] of the mean over tokens, or over those `among` them."""
        among = np.ones(len(self.of), bool) if among is None else among
        numerators, counts = self.sums(values * among), self.sums(among)
        low, high = ci95(numerators, counts, clusters=self.clusters, scale=scale)
        value = scale * numerators.sum() / counts.sum()
        return [round(float(number), DIGITS) for number in (value, low, high)]

    def layer(self, values: np.ndarray, among=None) -> list[float]:
        """The mean of depths or distances in layers; its interval is within 0 and L."""
        return self.mean(values / self.cost.layers, self.cost.layers, among)

    def share(self, values: np.ndarray, among=None) -> list[float]:
        return self.mean(values.astype(float), 100.0, among)

    def as_dict(self) -> dict[str, Any]:
        return {
            "utterances": len(self.answers),
            "tokens": len(self.of),
            "clusters": cluster_entry(self.clusters),
            "agreement": [self.share(row) for row in self.agrees_PN],
            "accuracy": [self.share(row == self.ids) for row in self.top_PN],
            "oracle": self.exits_of(self.oracle),
            "stable": self.exits_of(self.stable),
            "sublayer": self.sublayer_oracle(),
            "classes": {name: self.by_class(name) for name in self.classes},
            "criteria": {name: self.curves(name) for name in self.scores},
            "patience": {str(stride): self.patience(stride) for stride in policies.STRIDES},
            "gate": self.gate(),
            "paired": self.paired(),
        }

    def exits_of(self, exits: np.ndarray) -> dict[str, Any]:
        counts = Counter(exits.tolist())
        return {
            "layer": self.layer(exits),
            "flops": self.share(self.cost.ratio(exits, [], False)),
            "histogram": [counts[layer] for layer in range(1, self.cost.layers + 1)],
        }

    def sublayer_oracle(self) -> dict[str, Any] | None:
        """The depth, in layers, of the first point that agrees, and how much earlier it is than the
        first layer; None if only layers were measured."""
        if self.per_layer == 1:
            return None
        depth = policies.oracle(self.agrees_PN) / self.per_layer
        return {
            "layer": self.layer(depth),
            "earlier": self.layer(self.oracle - depth),
            "in_a_layer": self.share(depth % 1 != 0),
        }

    def by_class(self, name: str) -> dict[str, Any]:
        """For each class with tokens: their number, and the layers at which they could exit."""
        order = {"kind": KINDS, "position": POSITIONS, "frequency": FREQUENCIES}[name]
        found = {}
        for value in order:
            among = self.classes[name] == value
            if among.any():
                found[value] = {
                    "tokens": int(among.sum()),
                    "oracle": self.layer(self.oracle, among),
                    "stable": self.layer(self.stable, among),
                    "accuracy": self.share(self.top_LN[-1] == self.ids, among),
                }
        return found

    # --- policies

    def policy(self, exits: np.ndarray, checked: Sequence[int], predicts: bool) -> dict[str, Any]:
        """What a policy costs, and its error |l − l*| against the oracle's layer l*."""
        right = policies.predicted_at(self.top_LN, exits) == self.top_LN[-1]
        return {
            "layer": self.layer(exits),
            "agreement": self.share(right),
            "flops": self.share(self.cost.ratio(exits, checked, predicts)),
            "error": self.layer(abs(exits - self.oracle)),
            "premature": self.share(exits < self.oracle),
            "late": self.share(exits > self.oracle),
        }

    def curves(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """{stride: an entry for each threshold}."""
        found = {}
        for stride in policies.STRIDES:
            checked = policies.checked_layers(self.cost.layers, stride)
            if name == "gate":
                checked = [layer for layer in checked if layer in self.gate_layers]
            if checked:
                found[str(stride)] = [
                    {"threshold": threshold}
                    | self.policy(
                        policies.by_threshold(self.scores[name], threshold, checked),
                        checked,
                        name not in STATES_ONLY,
                    )
                    for threshold in policies.THRESHOLDS
                ]
        return found

    def patience(self, stride: int) -> list[dict[str, Any]]:
        checked = policies.checked_layers(self.cost.layers, stride)
        return [
            {"times": times}
            | self.policy(policies.by_patience(self.top_LN, times, checked), checked, True)
            for times in policies.PATIENCE
            if times <= len(checked)
        ]

    def gate(self) -> dict[str, Any] | None:
        """How well the gate says whether a layer agrees with the last, and where it exits."""
        if "gate" not in self.scores:
            return None
        right, exits = self.gate_decisions()
        agrees_GN = self.agrees_LN[np.array(self.gate_layers) - 1]
        return {
            "layers": self.gate_layers,
            "right": self.share(right),
            "agreeing": self.share(agrees_GN.mean(0)),
            "exit": self.policy(exits, self.gate_layers, False),
        }

    def gate_decisions(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each token: the share of layers at which the gate is right, and the gate's exit."""
        rows = np.array(self.gate_layers) - 1
        right_GN = (self.scores["gate"][rows] >= GATE) == self.agrees_LN[rows]
        exits = policies.by_threshold(self.scores["gate"], GATE, self.gate_layers)
        return right_GN.mean(0), exits

    def paired(self) -> dict[str, Any]:
        """Sums of every utterance, to compare two models on the same utterances."""
        sums = {"tokens": np.ones(len(self.of)), "oracle": self.oracle, "stable": self.stable}
        if "gate" in self.scores:
            right, exits = self.gate_decisions()
            sums |= {"error": abs(exits - self.oracle), "right": right}
        return {
            "ids": [answer.id for answer in self.answers],
            "clusters": self.clusters,
            **{k: [round(float(x), 4) for x in self.sums(v)] for k, v in sums.items()},
        }
