"""Gradient checkpointing: each decoder layer keeps its input, and runs again in the backward pass.

transformers' own checkpointing drops the KV cache. Here a layer reads a prompt's cache, so it is
run as a function of its input and of the keys and values before it, which changes no cache.
"""

# B batch, P positions in the cache, d width of a head

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, PreTrainedModel

from pam.errors import PamError
from pam.llm.load import attention_of_cpu
from pam.llm.probe import differ

PROBE = 4  # tokens of a part


class LayerCache:
    """The cache of one layer, as its attention uses it; `keys` and `values` [B, heads, P, d]."""

    def __init__(self, keys: Tensor | None, values: Tensor | None):
        self.keys, self.values = keys, values

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if self.keys is not None:
            keys = torch.cat([self.keys, keys], dim=-2)
            values = torch.cat([self.values, values], dim=-2)
        self.keys, self.values = keys, values
        return keys, values


def refuse_unless_right(llm: PreTrainedModel, backbone: nn.Module) -> None:
    """PamError if the layers of the decoder `backbone` of an LLM cannot run again: a text in two
    parts, read so, has other states than a plain pass."""
    with attention_of_cpu(llm):
        if not isinstance(getattr(backbone, "layers", None), nn.ModuleList) or not is_right(
            llm, backbone
        ):
            raise PamError(
                f"llm_conf.gradient_checkpointing: LLMs of the family {llm.config.model_type} "
                "cannot be run again layer by layer: leave it out"
            )


@contextmanager
def recomputing(backbone: nn.Module) -> Iterator[None]:
    """Context of a forward pass whose layers run again in its backward pass.

    It replaces the layers' `forward`, and puts it back: a copy of the LLM must not get it.
    """
    if not torch.is_grad_enabled():
        yield
        return
    for place, layer in enumerate(backbone.layers):
        layer.forward = recomputed(layer.forward, place)
    try:
        yield
    finally:
        for layer in backbone.layers:
            del layer.forward


def is_right(llm: PreTrainedModel, backbone: nn.Module) -> bool:
    """Whether a text in two parts has the states of a plain pass over all of it."""
    words = llm.get_input_embeddings()(torch.arange(2 * PROBE, device=llm.device))[None].detach()
    cache = DynamicCache()
    last_of_kind = {type(layer): layer for layer in backbone.layers}
    first = next(layer for layer in backbone.layers if layer in last_of_kind.values())
    hidden: list[Tensor] = []

    def note(_: nn.Module, given: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        hidden.append(given[0] if given else named["hidden_states"])

    hook = first.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            plain = backbone(inputs_embeds=words, use_cache=False).last_hidden_state
        with torch.enable_grad(), recomputing(backbone):
            for part in words.requires_grad_().split(PROBE, dim=1):
                inputs = {"inputs_embeds": part, "past_key_values": cache, "use_cache": True}
                states = backbone(**inputs).last_hidden_state
            # One layer of each kind: all gradients would take minutes in bfloat16 on a CPU without
            # AVX-512.
            torch.autograd.grad(states.sum(), hidden[-1])
    except (IndexError, KeyError, RuntimeError, TypeError):  # other arguments, or another cache
        return False
    finally:
        hook.remove()
    return not differ(states, plain[:, PROBE:])


def recomputed(plain: Callable, place: int) -> Callable:
    """The forward of layer `place`, recomputed in the backward pass."""
    names = list(inspect.signature(plain).parameters)

    def forward(*given: Any, **others: Any) -> Tensor | tuple:
        others |= zip(names, given, strict=False)
        hidden: Tensor = others.pop(names[0])
        named = next((name for name in others if isinstance(others[name], DynamicCache)), None)
        cache: DynamicCache | None = others.pop(named, None)
        known = cache is not None and place < len(cache.layers)
        past = (cache.layers[place].keys, cache.layers[place].values) if known else (None, None)

        def run(hidden: Tensor, keys: Tensor | None, values: Tensor | None) -> tuple:
            if cache is None:
                return (plain(hidden, **others),)
            own = LayerCache(keys, values)
            return plain(hidden, **others, **{named: own}), own.keys, own.values

        output, *new = checkpoint(run, hidden, *past, use_reentrant=False)
        if known:
            cache.layers[place].keys, cache.layers[place].values = new
        elif new:
            cache.update(*new, place)
        return output

    return forward
