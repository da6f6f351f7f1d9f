r"""Scale the losses of parts of a batch so that their mean is the loss of the joint batch.

An update joins several batches (`accum_grad`), and each batch is split over several processes.
ESPnet takes the mean of the loss over batches and processes, but these differ in their numbers of
answer tokens and utterances. So part i of I returns its own mean m_i over n_i entries, multiplied
by its share of the entries:

.. math::
    \frac{\sum_i n_i m_i}{\sum_i n_i} = \frac{1}{I} \sum_i m_i \frac{n_i}{\bar n}, \qquad
    \bar n = \frac{1}{I} \sum_i n_i

For a mean over tokens n counts tokens, for a mean over utterances it counts utterances. A process
without an utterance in a step has n = 0. With one process and no accumulation, every share is 1.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Means(NamedTuple):
    """Two factors: for means over answer tokens, and for means over utterances."""

    tokens: Float[Tensor, ""]
    utts: Float[Tensor, ""]


def own_counts(tokens: int, utts: int, device: torch.device) -> Float[Tensor, "3 2"]:
    """The counts of a whole batch, without other processes and batches."""
    return torch.tensor([[tokens, utts]] * 3, dtype=torch.float32, device=device)


def shares(counts: Float[Tensor, "3 2"]) -> tuple[Means, Means]:
    """n_i / n̄ within the batch (for statistics), and within the update (for the loss).

    `counts` has tokens and utterances of this process, the average per process of the batch, and
    the average per process and batch of the update.
    """
    in_batch, in_update = counts[0] / counts[1:]
    return Means(*in_batch), Means(*in_update)
