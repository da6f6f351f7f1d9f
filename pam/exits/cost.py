r"""The operations of an exit, by count: two for each weight of a matrix and token.

With c the operations of a layer and h those of the head, an exit after layer l with k checks costs
:math:`l c + k h` if a check is a prediction, and :math:`l c + h` if it reads the states only. The
whole LLM costs :math:`L c + h`. Not counted: attention to earlier positions (which saves as layers
are skipped, too), and the keys and values of skipped layers, which decoding has to fill in or copy.
So a ratio is a lower bound of what an exit policy costs.
"""

# L layers, N tokens

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import nn

STATES_ONLY = ("cosine", "gate")  # criteria that need no prediction at a layer without an exit


@dataclass(frozen=True)
class Cost:
    """Operations for a token: of a layer and of the head; `layers` is L."""

    layer: float
    head: float
    layers: int

    @property
    def whole(self) -> float:
        return self.layers * self.layer + self.head

    def ratio(
        self, exits: Int[np.ndarray, " N"], checked: Sequence[int], predicts: bool
    ) -> Float[np.ndarray, " N"]:
        """The operations of each exit over those of the whole LLM.

        `checked`: the layers with a check. `predicts`: whether a check is a prediction.
        """
        heads = np.ones(len(exits))
        if predicts:
            before = [layer for layer in checked if layer < self.layers]
            heads = np.searchsorted(before, exits, side="right").astype(float)
            heads += exits == self.layers  # the last layer predicts in any case
        return (exits * self.layer + heads * self.head) / self.whole

    def pays_up_to(self, stride: int) -> int:
        """The last exit that is cheaper than the whole LLM if every `stride`-th layer predicts."""
        checked = range(stride, self.layers, stride)
        ratios = self.ratio(np.array(checked, dtype=int), checked, True)
        return max((layer for layer, r in zip(checked, ratios, strict=True) if r < 1), default=0)


def cost_of(llm: nn.Module, layers: Sequence[nn.Module]) -> Cost:
    """The operations of an LLM with dense layers. LoRA, which can be merged, does not count."""
    matrices = [
        p.numel()
        for layer in layers
        for name, p in layer.named_parameters()
        if p.dim() == 2 and "lora_" not in name
    ]
    head = llm.get_output_embeddings().weight.numel()
    return Cost(2 * sum(matrices) / len(layers), 2 * head, len(layers))
