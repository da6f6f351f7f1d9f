"""Statistics per task, with the same keys in every batch: all processes must have equal keys."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def task_statistics(
    tasks: list[str],
    index: Int[Tensor, " N"],
    share: Float[Tensor, ""],
    **values: Float[Tensor, " N"],
) -> dict[str, Float[Tensor, ""]]:
    """`{value}_{task}`: the mean of each value over the entries of each task, times `share`.

    See `pam.model.joint` for `share`. With several processes, all entries have one task. A task
    without entries gives NaN, which ESPnet's reporter leaves out of its averages.
    """
    stats = {}
    for number, task in enumerate(tasks):
        chosen = index == number
        for name, value in values.items():
            picked = value.detach()[chosen]
            nothing = torch.full((), torch.nan, device=value.device)
            stats[f"{name}_{task}"] = picked.mean() * share if len(picked) else nothing
    return stats
