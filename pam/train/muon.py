r"""AdamW, with Muon for chosen matrices.

Muon (Jordan, 2024) moves a matrix W [m, n] by the orthogonal factor of its gradient's running
mean, so that all directions move alike, and not most what most frames share:

.. math::
    M \leftarrow \mu M + (1 - \mu) G, \qquad N = \mu M + (1 - \mu) G, \qquad
    W \leftarrow (1 - \eta\lambda) W - 0.2\,\eta\sqrt{\max(m, n)}\,(N N^\top)^{-1/2} N

with the gradient G, μ = 0.95, the rate η and the weight decay λ. The elements of an update have the
root mean square 0.2 η, as those of AdamW usually have (Liu et al., 2025), so η is a few times
AdamW's rate.

`torch.optim.Muon` approximates the factor in bfloat16, which many CPUs emulate. Here it is exact,
in float32, by the eigenvalues of N Nᵀ. Several processes share the matrices of a step.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed
from jaxtyping import Float
from torch import Tensor, nn

from pam.train.processes import is_started, rank, world

MOMENTUM = 0.95
RMS = 0.2  # of an update's elements, at a rate of 1
FLOOR = 1e-4  # of eigenvalues, as a share of the largest: small ones are errors of rounding


class AdamWMuon(torch.optim.AdamW):
    """AdamW, but Muon for the groups of parameters that have `muon: True`."""

    def __init__(self, groups: Iterable[Mapping[str, Any]], **options):
        super().__init__([{"muon": False} | dict(group) for group in groups], **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["muon"]:
                self._move_matrices(group)
        return loss

    def _move_matrices(self, group: Mapping[str, Any]) -> None:
        moved = [weight for weight in group["params"] if weight.grad is not None]
        sharing = list(zip(moved, shares(moved, world()), strict=True))
        for weight, process in sharing:
            state = self.state[weight]
            if not state:
                state["step"] = torch.zeros(())  # AdamW expects it of a checkpoint
                state["momentum"] = torch.zeros_like(weight)
            state["step"] += 1
            state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
            if process == rank():
                update = orthogonal(weight.grad.lerp(state["momentum"], MOMENTUM))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(update, alpha=group["lr"] * RMS * max(weight.shape) ** 0.5)
        if is_started():
            for weight, process in sharing:
                torch.distributed.broadcast(weight, process)


def shares(weights: Sequence[Tensor], processes: int) -> list[int]:
    """The process that moves each weight: the largest first, each to whom has least to do."""
    loads, found = [0] * processes, [0] * len(weights)
    for place in sorted(range(len(weights)), key=lambda place: -weights[place].numel()):
        found[place] = loads.index(min(loads))
        loads[found[place]] += weights[place].numel()
    return found


def orthogonal(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """The orthogonal factor U Vᵀ of a matrix U Σ Vᵀ; zero where the matrix is."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.mT).mT
    values, vectors = torch.linalg.eigh(matrix @ matrix.mT)
    least = (values[-1] * FLOOR).clamp(min=torch.finfo(values.dtype).tiny)
    return (vectors * values.maximum(least).rsqrt()) @ (vectors.mT @ matrix)


def matrices(fusion: nn.Module) -> set[int]:
    """The ids of the weights that Muon may train: those of the linear layers of a fusion."""
    layers = (layer for layer in fusion.modules() if isinstance(layer, nn.Linear))
    return {id(layer.weight) for layer in layers if not hasattr(layer.weight, "partial")}
