r"""How alike the encoders' feature spaces are, layer by layer (Table 12).

The paper prints cosines for its three encoders, "emb" to layer 12, and says neither over what nor
before or after which map. What is measured here:

- `cosine`: of two encoders' states at the same frame, averaged over frames. Raw states (h_{e,l})
  only where both are of one width; after FFN_e (f_{e,l}) always. A cosine of raw states compares
  axes that two separately trained encoders have no reason to share.
- `mean_cosine`: of the two vectors that are left when the frames are averaged first. A few features
  that are large in every frame decide it: values near ±1 are common.
- `cka`: linear CKA of the raw states, the cosine of their centred frame-by-frame similarities. It
  needs no shared width or axes, and no projection. Few frames raise it: compare equal counts only.

Encoders of different depth are paired at equal relative depth: first with first, last with last.
"""

# N frames, S hidden states of one encoder, C width of one encoder, D width of the LLM

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

MEASURES = {
    "cosine_mapped": "cosine after FFN_e",
    "mean_cosine_mapped": "cosine of the means after FFN_e",
    "cosine": "cosine, raw states",
    "mean_cosine": "cosine of the means, raw states",
    "cka": "linear CKA, raw states",
}
NEEDS = "raw states need equal widths, those after FFN_e a fusion of every layer"
DIGITS = 4


def cosine(x_ND: Float[np.ndarray, "N D"], y_ND: Float[np.ndarray, "N D"]) -> float:
    """Mean over frames; a frame that is zero in one of them counts as 0."""
    norms_N = np.linalg.norm(x_ND, axis=1) * np.linalg.norm(y_ND, axis=1)
    dots_N = (x_ND * y_ND).sum(1)
    return float(np.mean(np.divide(dots_N, norms_N, where=norms_N > 0, out=np.zeros_like(dots_N))))


def linear_cka(x_NC: Float[np.ndarray, "N C"], y_NK: Float[np.ndarray, "N K"]) -> float:
    """‖Xᵀ Y‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖) of centred features (Kornblith et al., 2019)."""
    x_NC, y_NK = x_NC - x_NC.mean(0), y_NK - y_NK.mean(0)
    within = np.linalg.norm(x_NC.T @ x_NC) * np.linalg.norm(y_NK.T @ y_NK)
    return float(np.linalg.norm(x_NC.T @ y_NK) ** 2 / within) if within else 0.0


def layer_pairs(first: int, second: int) -> list[tuple[int, int]]:
    """States of two encoders with `first` and `second` of them, a pair for each of the deeper's."""
    deepest = max(first, second, 2) - 1

    def at(layer: int, count: int) -> int:
        return (2 * layer * (count - 1) + deepest) // (2 * deepest)  # rounded, halves up

    return [(at(n, first), at(n, second)) for n in range(max(first, second))]


def similarities(
    raw: Mapping[str, Float[np.ndarray, "_ N _"]],
    mapped: Mapping[str, Float[np.ndarray, "_ U _"]] | None = None,
) -> list[dict[str, Any]]:
    """One entry for each pair of encoders: their layers and every measure along them.

    `raw` holds h_{e,l} of the same N frames for each encoder, `mapped` f_{e,l}; a value that does
    not exist (widths that differ, no FFN_e) is None.
    """
    out = []
    for first, second in combinations(raw, 2):
        pairs = layer_pairs(len(raw[first]), len(raw[second]))
        rows = []
        for i, j in pairs:
            row = dict.fromkeys(MEASURES)
            row["cka"] = linear_cka(_double(raw[first][i]), _double(raw[second][j]))
            _add_cosines(row, "", raw[first][i], raw[second][j])
            if mapped:
                _add_cosines(row, "_mapped", mapped[first][i], mapped[second][j])
            rows.append(row)
        columns = {key: [_round(row[key]) for row in rows] for key in MEASURES}
        out.append({"encoders": [first, second], "layers": [list(p) for p in pairs], **columns})
    return out


def _add_cosines(row: dict[str, Any], suffix: str, x: np.ndarray, y: np.ndarray) -> None:
    if x.shape[1] == y.shape[1]:
        x, y = _double(x), _double(y)
        row[f"cosine{suffix}"] = cosine(x, y)
        row[f"mean_cosine{suffix}"] = cosine(x.mean(0)[None], y.mean(0)[None])


def _double(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, dtype=np.float64)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
