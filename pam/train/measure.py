"""Statistics of the encoder states of training data, for adapters that standardise states."""

# S hidden states of an encoder, T frames, C its width

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pam.data.utterances import Inputs, batch_of
from pam.log import get_logger
from pam.model.speech_llm import ESPnetPaMModel

logger = get_logger(__name__)


def to_measure(model: ESPnetPaMModel) -> list[int]:
    """The numbers of the encoders whose adapters have no statistics yet."""
    adapters = getattr(model.fusion, "adapters", ())
    return [n for n, a in enumerate(adapters) if getattr(a, "needs_measuring", False)]


@torch.no_grad()
def measure_states(model: ESPnetPaMModel, utts: Sequence[str], inputs: Inputs) -> None:
    """Give the states of `utts` to each adapter that has no statistics yet.

    An adapter that was loaded from a checkpoint keeps its own.
    """
    for number in to_measure(model):
        model.fusion.adapters[number].measure(states_of(model, utts, inputs, number))
        logger.info("%s: standardised by %d clips", model.shapes[number].name, len(utts))


def states_of(
    model: ESPnetPaMModel, utts: Sequence[str], inputs: Inputs, number: int
) -> Iterator[Float[Tensor, "T S C"]]:
    """The states of one encoder, clip by clip."""
    for utt in utts:
        states, _ = model.states(batch_of([inputs[utt]], model.device))
        yield states[number][0].transpose(0, 1)
