r"""W of equation 5 from a checkpoint, as shares of layers and of bands of layers.

A weight shows what is mixed, not what is used, for three reasons. f_{e,l} may be large or small
(`shares` can include its norm). FFN_o may ignore a fused feature. The last state of every encoder
also reaches FFN_o without W (equation 6). `pam.analysis.importance` measures what is used.
"""

# M fused features of an expert, S hidden states of all encoders

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pam.errors import PamError
from pam.model.experts import expert_names, experts_have_tasks

BANDS = ("low", "middle", "high")
WEIGHT = re.compile(r"fusion\.(shared|experts\.\d+)\.weight")
Encoders = Mapping[str, Mapping[str, Any]]


def bands(num_states: int) -> dict[str, range]:
    """The states of each third of an encoder's layers; of 12 layers: 1–4, 5–8, 9–12 (Figure 3).

    State 0 (the input of the first layer) belongs to the low band. Empty bands are left out.
    """
    layers = num_states - 1
    ends = [0, 1 + round(layers / 3), 1 + 2 * layers // 3, num_states]
    parts = zip(BANDS, ends, ends[1:], strict=False)
    return {name: range(first, end) for name, first, end in parts if end > first}


def layer_weights(
    checkpoint: Path, config: Mapping[str, Any]
) -> dict[str, Float[np.ndarray, "M S"]]:
    """W of equation 5 for every expert of a checkpoint; {} for a system without experts."""
    if not checkpoint.is_file():
        return {}
    file = checkpoint.stat()
    state = _read_weights(checkpoint.resolve(), file.st_mtime_ns, file.st_size)
    total = sum(conf["num_states"] for conf in config["encoders"].values())
    softmax = (config.get("fusion_conf") or {}).get("weights") == "softmax"
    found = {}
    for key, name in _experts(state, config).items():
        weight_MS = state[key].float()
        if weight_MS.shape[-1] != total:
            raise PamError(
                f"{checkpoint}: {key} weighs {weight_MS.shape[-1]} states, the encoders of the "
                f"configuration have {total}: checkpoint and config.yaml are of different systems"
            )
        found[name] = (weight_MS.softmax(-1) if softmax else weight_MS.clone()).numpy()
    return found


@lru_cache(maxsize=16)
def _read_weights(checkpoint: Path, changed: int, size: int) -> dict[str, Any]:
    """The experts' weights of a checkpoint, cached because several parts of a report need them.

    `changed` and `size` are part of the cache's key, so that a newer file is read again.
    """
    from pam.checkpoint import read_weights

    state = read_weights(checkpoint)
    return {key: value.clone() for key, value in state.items() if WEIGHT.fullmatch(key)}


def shares(
    weight_MS: Float[np.ndarray, "M S"], norms_S: Float[np.ndarray, " S"] | None = None
) -> Float[np.ndarray, " S"]:
    """Share of each state s in Σ_m |W_{m,s}|; with `norms_S`, weighted by the mean norm of f_s."""
    size_S = np.abs(weight_MS).sum(0)
    if norms_S is not None:
        size_S = size_S * norms_S
    return size_S / max(float(size_S.sum()), np.finfo(np.float64).tiny)


def band_shares(
    share_S: Float[np.ndarray, " S"], encoders: Encoders
) -> dict[str, dict[str, float]]:
    """{encoder: {band: share}}; over all encoders they sum to 1."""
    out: dict[str, dict[str, float]] = {}
    start = 0
    for name, conf in encoders.items():
        out[name] = {
            band: float(share_S[start + states.start : start + states.stop].sum())
            for band, states in bands(conf["num_states"]).items()
        }
        start += conf["num_states"]
    return out


def _experts(state: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    """Keys of the experts' weights in a checkpoint: name of the expert."""
    names = {"fusion.shared.weight": "shared"}
    routed = expert_names(config.get("tasks") or [], experts_have_tasks(config))
    names |= {f"fusion.experts.{n}.weight": name for n, name in enumerate(routed)}
    return {key: name for key, name in names.items() if key in state}
