r"""AdamW, with Muon for chosen weights.

Muon (Jordan, 2024) moves a matrix W [m, n] equally far in every direction. AdamW moves it mostly in
the few directions that most frames share:

.. math::
    M \leftarrow \mu M + (1 - \mu) G, \qquad N = \mu M + (1 - \mu) G, \qquad
    W \leftarrow (1 - \eta\lambda) W - 0.2\,\eta\sqrt{\max(m, n)}\,(N N^\top)^{-1/2} N

with the gradient G, μ = 0.95, the rate η and the weight decay λ. The elements of an update have the
root mean square 0.2 η, as those of AdamW usually have (Liu et al., 2025), so the rates are of the
same size. Eigenvalues of N Nᵀ count as at least 1e-4 of the largest: directions with less are
noise, and differ between one process and two.

`torch.optim.Muon` approximates the inverse root in bfloat16, which many CPUs emulate. Here it is
computed in float32 from the eigenvalues. Several processes share the matrices of a step.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed
from jaxtyping import Float
from torch import Tensor, nn

from pam.fusion.router import Router
from pam.train.processes import rank, world

MOMENTUM = 0.95
RMS = 0.2  # of an update's elements, at a rate of 1
FLOOR = 1e-4  # of the eigenvalues of N Nᵀ, as a share of the largest


class AdamWMuon(torch.optim.AdamW):
    """AdamW, but Muon for the groups of parameters that have `muon: True`."""

    def __init__(self, groups: Iterable[Mapping[str, Any]], **options):
        super().__init__([{"muon": False} | dict(group) for group in groups], **options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("muon", False)  # a checkpoint of an earlier version

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
                matrix = weight.grad.lerp(state["momentum"], MOMENTUM).flatten(1)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                size = group["lr"] * RMS * max(matrix.shape) ** 0.5
                weight.sub_(orthogonal(matrix).view_as(weight), alpha=size)
        if world() > 1:
            for weight, process in sharing:
                torch.distributed.broadcast(weight, process)


def shares(weights: Sequence[Tensor], processes: int) -> list[int]:
    """The process that moves each weight: largest first, each to the process with least so far."""
    loads, found = [0] * processes, [0] * len(weights)
    for place in sorted(range(len(weights)), key=lambda place: -weights[place].numel()):
        found[place] = loads.index(min(loads))
        loads[found[place]] += weights[place].numel()
    return found


def orthogonal(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """U f(Σ) Vᵀ of a matrix U Σ Vᵀ: f is 1 from 1 % of the largest singular value on, and linear
    below. Zero where the matrix is."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.mT).mT
    product = matrix @ matrix.mT
    try:
        values, vectors = torch.linalg.eigh(product)
    except torch.linalg.LinAlgError:  # LAPACK may not converge in float32
        values, vectors = (part.to(matrix.dtype) for part in torch.linalg.eigh(product.double()))
    least = (values[-1] * FLOOR).clamp(min=torch.finfo(values.dtype).tiny)
    return ((vectors * values.maximum(least).rsqrt()) @ vectors.mT) @ matrix  # [m, m] first


def matrices(fusion: nn.Module) -> set[int]:
    """The ids of the weights that Muon may train: those of linear layers, convolutions (a row for
    each output) and attention, but not of a router."""
    found = []
    routers = (module for module in fusion.modules() if isinstance(module, Router))
    left_out = {id(layer) for router in routers for layer in router.modules()}
    for layer in fusion.modules():
        if id(layer) not in left_out and isinstance(layer, nn.Linear | nn.Conv1d):
            found.append(layer.weight)
        elif isinstance(layer, nn.MultiheadAttention):
            found.append(layer.in_proj_weight)
    return {id(weight) for weight in found if not hasattr(weight, "partial")}
