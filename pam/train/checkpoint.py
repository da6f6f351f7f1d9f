"""Select or average checkpoints (ESPnet's own averaging is wrong for more than one n)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pam.checkpoint import read_weights
from pam.errors import UserError


def average(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of checkpoints, summed in float64 and given back in each weight's own type."""
    states = [read_weights(path) for path in paths]
    names = states[0].keys()
    if any(state.keys() != names for state in states):
        raise UserError(f"{paths[0].parent}: the checkpoints are of different systems")
    return {
        name: torch.stack([state[name].double() for state in states])
        .mean(0)
        .to(states[0][name].dtype)
        for name in names
    }


def epoch_checkpoints(folder: Path) -> dict[int, Path]:
    """The N epoch checkpoints that ESPnet kept: epoch → path."""
    found = {int(path.name.removesuffix("epoch.pth")): path for path in folder.glob("*epoch.pth")}
    if not found:
        raise UserError(f"{folder}: no checkpoints: run stage 4 of the recipe")
    return dict(sorted(found.items()))


def choose(folder: Path, method: str, number: int, losses: dict[int, float]) -> list[Path]:
    """The `number` last checkpoints, or the best by dev loss."""
    found = epoch_checkpoints(folder)
    ranked = sorted(found, reverse=True) if method == "last" else sorted(found, key=losses.get)
    if len(ranked) < number:
        raise UserError(
            f"{folder}: {number} checkpoints wanted, {len(ranked)} kept: "
            "lower --num, or train with a larger keep_nbest_models"
        )
    return [found[epoch] for epoch in ranked[:number]]
