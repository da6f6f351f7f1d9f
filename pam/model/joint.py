r"""How parts of a batch add up to the joint batch of an update.

An update joins several batches (`accum_grad`), and each of them is split over several processes.
ESPnet takes the mean of the loss over batches and processes, but these have different numbers of
answer tokens and of utterances. So part i of I returns its own mean m_i over n_i entries, times its
share of the entries:

.. math::
    \frac{\sum_i n_i m_i}{\sum_i n_i} = \frac{1}{I} \sum_i m_i \frac{n_i}{\bar n}, \qquad
    \bar n = \frac{1}{I} \sum_i n_i

For a mean over tokens n counts tokens, for one over utterances it counts utterances. A process that
has no utterance in a step has n = 0. In one process, without accumulation, every share is 1.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Means(NamedTuple):
    """A pair of numbers, for a mean over answer tokens and for one over utterances."""

    tokens: Float[Tensor, ""]
    utts: Float[Tensor, ""]


def own_counts(tokens: int, utts: int, device: torch.device) -> Float[Tensor, "3 2"]:
    """The counts of a batch that is whole: there are no other processes and batches."""
    return torch.tensor([[tokens, utts]] * 3, dtype=torch.float32, device=device)


def shares(counts: Float[Tensor, "3 2"]) -> tuple[Means, Means]:
    """n_i / n̄ in the batch, for statistics, and in the update, for the loss.

    `counts` are tokens and utterances: of this process, of the batch a process on average, and of
    the update a process and batch on average.
    """
    in_batch, in_update = counts[0] / counts[1:]
    return Means(*in_batch), Means(*in_update)
