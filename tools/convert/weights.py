"""Helpers that all conversions share."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from pam.errors import PamError


def rename(key: str, pairs: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in pairs:
        key = re.sub(pattern, replacement, key)
    return key


def load_exactly(model: nn.Module, weights: Mapping[str, Tensor], tied: Iterable[str] = ()) -> None:
    """Load `weights`; every parameter but the `tied` ones must be there, and nothing else."""
    result = model.load_state_dict(weights, strict=False)
    missing = sorted(set(result.missing_keys) - set(tied))
    if missing or result.unexpected_keys:
        raise PamError(
            f"the checkpoint does not fit {type(model).__name__}: "
            f"missing {missing[:3]}, unknown {sorted(result.unexpected_keys)[:3]}"
        )
