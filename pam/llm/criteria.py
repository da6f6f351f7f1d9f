"""When a state is good enough to predict the token: the criteria of early exit.

A criterion gives a score; the LLM exits at the first layer whose score reaches the threshold. Only
the gate needs trained weights.
"""

# N tokens, V vocabulary, D width of the LLM

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass
class Check:
    """What is known about N tokens at a checked layer.

    Attributes:
        logits: of this layer, through the LLM's own norm and head.
        hidden, before: the states after this layer, and after the layer checked before it.
        tokens: the most probable tokens of all layers checked so far, this one last.
        gate: the probability that the trained gate gives, if there is one.
    """

    logits: Float[Tensor, "N V"]
    hidden: Float[Tensor, "N D"]
    before: Float[Tensor, "N D"] | None
    tokens: list[Int[Tensor, " N"]]
    gate: Float[Tensor, " N"] | None = None


def softmax(check: Check) -> Float[Tensor, " N"]:
    """The probability of the most probable token."""
    return check.logits.softmax(-1).amax(-1)


def margin(check: Check) -> Float[Tensor, " N"]:
    """The difference between the two largest probabilities."""
    first, second = check.logits.softmax(-1).topk(2).values.unbind(-1)
    return first - second


def entropy(check: Check) -> Float[Tensor, " N"]:
    """1 - H / log V: 1 for a certain prediction, 0 for equal probabilities."""
    logprobs = check.logits.log_softmax(-1)
    return 1 + (logprobs.exp() * logprobs).sum(-1) / math.log(logprobs.shape[-1])


def cosine(check: Check) -> Float[Tensor, " N"]:
    """The cosine between the states of this and of the layer checked before it."""
    if check.before is None:
        return check.hidden.new_full((len(check.hidden),), -1).float()
    return F.cosine_similarity(check.hidden.float(), check.before.float(), dim=-1)


def patience(check: Check) -> Float[Tensor, " N"]:
    """The number of checked layers, up to this one, that predict the same token."""
    equal = torch.stack([tokens == check.tokens[-1] for tokens in check.tokens[::-1]])
    return equal.cumprod(0).sum(0).float()


def gate(check: Check) -> Float[Tensor, " N"]:
    """The trained gate's probability that this layer predicts the last layer's token."""
    return check.gate


CRITERIA: dict[str, Callable[[Check], Float[Tensor, " N"]]] = {
    "softmax": softmax,
    "margin": margin,
    "entropy": entropy,
    "cosine": cosine,
    "patience": patience,
    "gate": gate,
}
