"""Where each exit policy leaves the LLM, token by token."""

# L layers, N tokens

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
PATIENCE = (2, 3, 4, 6, 8)  # equal predictions in a row
STRIDES = (1, 2, 3, 6)  # a check at every n-th layer


def checked_layers(layers: int, stride: int) -> list[int]:
    """The layers before the last at which a policy may exit."""
    return list(range(stride, layers, stride))


def oracle(agrees_LN: Bool[np.ndarray, "L N"]) -> Int[np.ndarray, " N"]:
    """The first layer (from 1) whose prediction is that of the last."""
    return agrees_LN.argmax(0) + 1


def stable_oracle(agrees_LN: Bool[np.ndarray, "L N"]) -> Int[np.ndarray, " N"]:
    """The first layer from which on all predictions are that of the last."""
    return len(agrees_LN) - agrees_LN[::-1].cumprod(0).sum(0) + 1


def by_threshold(
    scores_LN: Float[np.ndarray, "L N"], threshold: float, checked: Sequence[int]
) -> Int[np.ndarray, " N"]:
    """The first checked layer whose score is at least `threshold`, else the last layer."""
    enough = scores_LN[np.array(checked) - 1] >= threshold
    layers = np.array([*checked, len(scores_LN)])
    return layers[np.where(enough.any(0), enough.argmax(0), len(checked))]


def by_patience(
    top_LN: Int[np.ndarray, "L N"], times: int, checked: Sequence[int]
) -> Int[np.ndarray, " N"]:
    """The first checked layer that ends `times` equal predictions in a row, else the last layer."""
    top = top_LN[np.array(checked) - 1]
    runs = np.ones_like(top)
    for row in range(1, len(top)):
        runs[row] = np.where(top[row] == top[row - 1], runs[row - 1] + 1, 1)
    return by_threshold(
        spread(runs >= times, len(top_LN), checked).astype(np.float32), 0.5, checked
    )


def spread(
    rows: Bool[np.ndarray, "C N"], layers: int, checked: Sequence[int]
) -> Bool[np.ndarray, "L N"]:
    """The rows of the checked layers among all layers; the others are False."""
    out = np.zeros((layers, rows.shape[1]), dtype=bool)
    out[np.array(checked) - 1] = rows
    return out


def predicted_at(
    top_LN: Int[np.ndarray, "L N"], exits_N: Int[np.ndarray, " N"]
) -> Int[np.ndarray, " N"]:
    """The token that each exit predicts."""
    return np.take_along_axis(top_LN, exits_N[None] - 1, 0)[0]
