"""Select or average checkpoints (ESPnet's own averaging is wrong for more than one n)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pam.checkpoint import read_weights
from pam.errors import PamError


def average(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of checkpoints. The sum is in float64; each weight keeps its own type."""
    states = [read_weights(path) for path in paths]
    names = states[0].keys()
    if any(state.keys() != names for state in states):
        raise PamError(f"{paths[0].parent}: the checkpoints are of different systems")
    return {
        name: torch.stack([state[name].double() for state in states])
        .mean(0)
        .to(states[0][name].dtype)
        for name in names
    }


def choose(folder: Path, method: str, number: int, losses: Mapping[int, float]) -> list[Path]:
    """The checkpoints of the last `number` epochs (latest first), or of the best (lowest loss
    first).

    `losses` maps each candidate epoch to its dev loss. `last.pth` stands for the last epoch if that
    has no file of its own. PamError if there are too few epochs or a checkpoint was not kept.
    """
    if not 1 <= number <= len(losses):
        raise PamError(
            f"--num {number}: {folder} has {len(losses)} epochs with a finite dev loss: "
            f"choose 1 to {len(losses)}"
        )
    ranked = sorted(losses, reverse=True) if method == "last" else sorted(losses, key=losses.get)
    chosen = {epoch: folder / f"{epoch}epoch.pth" for epoch in ranked[:number]}
    last = max(losses)
    if last in chosen and not chosen[last].is_file():
        chosen[last] = folder / "last.pth"
    missing = [path.name for path in chosen.values() if not path.is_file()]
    if missing:
        raise PamError(
            f"{folder}: {', '.join(missing)} not kept: lower --num, or train with a larger "
            f"keep_nbest_models ({number} or more)"
        )
    return list(chosen.values())
