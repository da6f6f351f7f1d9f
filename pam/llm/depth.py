"""The decoder layers of an LLM in parts, and its predictions at every point of its depth.

The state at any point passes through the LLM's own final norm and head: no output layer is added
(arXiv 2412.01455). Layer l has two points: after the residual of its attention (2l - 1 of 2L), and
after that of its FFN (2l), the layer's output.
"""

# B batch, T positions, D width of the LLM, V vocabulary

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pam.errors import PamError
from pam.llm.causal_lm import CausalLM
from pam.llm.load import attention_of_cpu
from pam.llm.probe import differ
from pam.llm.supported import one_line


class Depth:
    """The layers of `lm`, an LLM like Llama: a plain stack of layers and a final norm.

    `PamError` names the family of another LLM. With `sublayers`, the layers must also have the
    form x' = x + attention(norm(x)), x'' = x' + FFN(norm(x')).
    """

    def __init__(self, lm: CausalLM, sublayers: bool = False):
        self.lm, self.backbone = lm, lm.backbone
        self.layers = getattr(self.backbone, "layers", None)
        self.norm = getattr(self.backbone, "norm", None)
        self.parts: dict[tuple[int, int], nn.Module] = {}
        self.keys_only: dict[tuple[int, int], nn.Module] = {}
        with torch.no_grad(), attention_of_cpu(lm.llm):
            reason = self.fault(sublayers)
        if reason is not None:
            family = lm.llm.config.model_type
            raise PamError(f"early exit: LLMs of the family {family} cannot be used: {reason}")

    def __len__(self) -> int:
        """L, the number of layers."""
        return len(self.layers)

    def run(
        self, hidden: Float[Tensor, "B T D"], first: int, last: int, **inputs
    ) -> Float[Tensor, "B T D"]:
        """The states after layer `last`, from those after layer `first` (0: the embeddings).

        `inputs`: further arguments of the decoder: mask, positions, cache. With a cache, the mask
        must be [B, 1, T, all]: from a shorter one, transformers makes it by the length of the
        first layer's cache, which an earlier part has already changed.
        """
        if (first, last) not in self.parts:
            self.parts[first, last] = self.part(self.layers[first:last])
        return self.parts[first, last](inputs_embeds=hidden, **inputs).last_hidden_state

    def propagate(
        self, hidden: Float[Tensor, "B T D"], first: int, last: int, **inputs
    ) -> Float[Tensor, "B T D"]:
        """Store the keys and values of layers first + 1 to `last` as if all got the same input.

        Only for layers with sub-layers. Returns `hidden`.
        """
        if (first, last) not in self.keys_only:
            layers = [KeysAndValues(layer) for layer in self.layers[first:last]]
            self.keys_only[first, last] = self.part(layers)
        return self.keys_only[first, last](inputs_embeds=hidden, **inputs).last_hidden_state

    def part(self, layers: Iterable[nn.Module]) -> nn.Module:
        """The decoder with these layers and without its final norm; it shares the weights."""
        part = copy.copy(self.backbone)
        own = {"layers": nn.ModuleList(layers), "norm": nn.Identity()}
        part._modules = self.backbone._modules | own
        return part

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """The LLM's prediction from states of any point."""
        return self.lm.logits(self.norm(hidden))

    @contextmanager
    def record(self, sublayers: bool = False) -> Iterator[list[Float[Tensor, "B T D"]]]:
        """Context that collects the states of one pass after each layer, or at all 2L points."""
        states: list[Tensor] = []
        hooks = []
        for layer in self.layers:
            if sublayers:
                hooks.append(
                    layer.post_attention_layernorm.register_forward_pre_hook(
                        lambda _, inputs: states.append(inputs[0])
                    )
                )
            hooks.append(
                layer.register_forward_hook(lambda _, __, output: states.append(first_of(output)))
            )
        try:
            yield states
        finally:
            for hook in hooks:
                hook.remove()

    def fault(self, sublayers: bool) -> str | None:
        """Why the layers cannot be run in parts; None if they can."""
        if not isinstance(self.layers, nn.ModuleList) or not isinstance(self.norm, nn.Module):
            return "its decoder has no plain list of layers with a final norm"
        words = self.lm.embed(torch.arange(4, device=self.lm.embeddings.device))[None]
        try:
            with self.record() as states:
                whole = self.backbone(inputs_embeds=words, use_cache=False).last_hidden_state
            hidden = words
            for layer in range(len(self)):
                hidden = self.run(hidden, layer, layer + 1, use_cache=False)
        except Exception as error:  # a family's code may fail in any way
            return f"{type(error).__name__}: {one_line(error)}"
        if len(states) != len(self):
            return f"a pass runs its {len(self)} layers {len(states)} times"
        if differ(self.norm(states[-1]), whole) or differ(self.norm(hidden), whole):
            return "its layers in parts give other states than one pass"
        return self.fault_of_sublayers(words) if sublayers else None

    def fault_of_sublayers(self, words: Float[Tensor, "1 T D"]) -> str | None:
        names = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
        if any(names - dict(layer.named_children()).keys() for layer in self.layers):
            return f"its layers do not have the parts {', '.join(sorted(names))}"
        with self.record(sublayers=True) as states:
            self.backbone(inputs_embeds=words, use_cache=False)
        for layer, middle, end in zip(self.layers, states[::2], states[1::2], strict=True):
            if differ(middle + layer.mlp(layer.post_attention_layernorm(middle)), end):
                return "its layers are not x' + FFN(norm(x'))"
        return None


class KeysAndValues(nn.Module):
    """A layer of which only the attention runs, for its keys and values."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Float[Tensor, "B T D"], **inputs) -> Float[Tensor, "B T D"]:
        self.layer.self_attn(hidden_states=self.layer.input_layernorm(hidden), **inputs)
        return hidden


def first_of(output: Tensor | tuple) -> Tensor:
    """The states in a layer's output; some families return a tuple."""
    return output if isinstance(output, Tensor) else output[0]
