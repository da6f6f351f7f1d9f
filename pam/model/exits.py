r"""Joint optimisation of the LLM's layers, and a gate that learns where to exit.

Both are optional terms of the training loss. With h_l, the state after layer l, the model's own
final norm and head predict at every depth: :math:`p_l = \mathrm{head}(\mathrm{norm}(h_l))`.

- **Joint optimisation** adds :math:`\lambda \sum_{l<L} w_l \mathrm{CE}(p_l, y)` with
  :math:`\sum_{l<L} w_l = 1` to the loss of equation 10, whose own term is that of the last layer L.
- **The gate** adds the binary cross-entropy of
  :math:`\sigma(u_l \cdot \mathrm{norm}(h_l) + b_l)` with :math:`1[\arg\max p_l = \arg\max p_L]`.
  Its gradient reaches only u and b, not the states.
"""

# N answer tokens, G layers of the gate, D width of the LLM, V vocabulary

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.errors import PamError
from pam.llm.causal_lm import CausalLM
from pam.llm.depth import Depth


class ExitLoss:
    """The losses of an LLM's layers before the last, and of a gate on them.

    Args:
        llm: the LLM, which `Depth` must be able to run.
        share: λ, the total weight of the layers before the last, whose weight is 1; 0: no joint
            optimisation.
        weights: w_l of a layer: "linear" in its depth l, as in LayerSkip (arXiv 2404.16710), or
            "equal".
        stride: the layers are the multiples of this number below L.
        per_batch: layers drawn for each batch, which makes a step cheaper; their terms are scaled
            so that the expected loss is that of all layers. null: all of them in every batch.
        gate: whether to train a gate for each of the layers.
    """

    def __init__(
        self,
        llm: CausalLM,
        share: float = 0.0,
        weights: Literal["linear", "equal"] = "linear",
        stride: int = 1,
        per_batch: int | None = None,
        gate: bool = False,
    ):
        self.depth, self.share = Depth(llm), share
        self.layers = exit_layers(len(self.depth), stride)
        self.per_batch = len(self.layers) if per_batch is None else per_batch
        if self.per_batch > len(self.layers):
            raise PamError(
                f"model_conf.exits.per_batch: {per_batch}: with stride {stride} there are "
                f"{len(self.layers)} layers before the last"
            )
        depths = {layer: layer if weights == "linear" else 1 for layer in self.layers}
        self.weight = {layer: d / sum(depths.values()) for layer, d in depths.items()}
        self.gate = ExitGate(self.layers, llm.width) if gate else None

    def __call__(
        self,
        states: Sequence[Float[Tensor, "N D"]],
        logits: Float[Tensor, "N V"],
        labels: Int[Tensor, " N"],
        draw: Int[Tensor, ""] | None,
    ) -> dict[str, Float[Tensor, ""]]:
        """`exit_loss` λ Σ w_l CE_l and `exit_gate_loss`, means over tokens; one for each in use.

        `states` are those after every layer, `logits` are of the last. `draw` is a random number
        from which layers are drawn.
        """
        if draw is None:
            raise ValueError("exits: a training batch needs `draw`, as Collate draws it")
        drawn = draw_layers(self.layers, self.per_batch, int(draw))
        last = logits.detach().argmax(-1)
        answering, locating = [], []
        for layer in drawn:
            state = states[layer - 1]
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.share > 0):
                own = self.depth.logits(state)
            if self.share > 0:
                answering.append(self.weight[layer] * F.cross_entropy(own, labels))
            if self.gate is not None:
                agrees = self.gate(self.depth.norm(state.detach()), layer)
                right = (own.argmax(-1) == last).to(agrees.dtype)
                locating.append(F.binary_cross_entropy_with_logits(agrees, right))
        scale = self.share * len(self.layers) / len(drawn)
        found = {"exit_loss": scale * sum(answering)} if answering else {}
        return found | ({"exit_gate_loss": sum(locating) / len(drawn)} if locating else {})


def exit_layers(llm_layers: int, stride: int) -> list[int]:
    """The multiples of `stride` below L."""
    if stride >= llm_layers:
        raise PamError(
            f"model_conf.exits.stride: {stride}: the LLM has {llm_layers} layers: "
            f"choose 1 to {llm_layers - 1}"
        )
    return list(range(stride, llm_layers, stride))


def draw_layers(layers: Sequence[int], count: int, number: int) -> list[int]:
    """`count` of the layers. They depend only on the random `number`."""
    generator = np.random.default_rng(number)
    return sorted(generator.choice(layers, count, replace=False).tolist())


class ExitGate(nn.Module):
    """σ(u_l · norm(h_l) + b_l) for each of `layers`: the probability that layer l agrees with L.

    It starts at 0, which gives 0.5 and draws no random numbers.
    """

    def __init__(self, layers: Sequence[int], width: int):
        super().__init__()
        self.layers = list(layers)
        self.weight = nn.Parameter(torch.zeros(len(self.layers), width))
        self.bias = nn.Parameter(torch.zeros(len(self.layers)))

    def forward(self, normed: Float[Tensor, "*N D"], layer: int) -> Float[Tensor, "*N"]:
        """The logits, from states after the LLM's final norm; in float32."""
        row = self.layers.index(layer)
        with torch.autocast(normed.device.type, enabled=False):
            return normed.to(self.weight.dtype) @ self.weight[row] + self.bias[row]
