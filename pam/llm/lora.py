"""LoRA in a frozen LLM: choice of layers, injection, and the LLM without LoRA."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pam.errors import PamError
from pam.llm.load import attention_of_cpu
from pam.llm.lora_linear import Group, LoRALinear
from pam.registry import nearest

ALL_LINEAR = "all-linear"  # PEFT's name
LINEAR = (nn.Linear, Conv1D)  # Conv1D: GPT-2's linear layer, its weight transposed
TRIED_TOKENS = 8


def linear_layers(llm: PreTrainedModel) -> list[str]:
    """Names of the linear layers whose output the logits of a text depend on, except the LM head.

    They are found by one pass. It excludes vision towers, poolers, attention to an encoder, and
    routers of experts that use only their layer's weight or return several tensors. Without weights
    (torch's meta device) no pass is possible, and all linear layers are returned.
    """
    linear = {n: m for n, m in llm.named_modules() if isinstance(m, LINEAR)}
    linear = {n: m for n, m in linear.items() if m is not llm.get_output_embeddings()}
    used = set(linear.values()) if llm.device.type == "meta" else used_layers(llm, linear.values())
    return [name for name, layer in linear.items() if layer in used]


def used_layers(llm: PreTrainedModel, layers: Iterable[nn.Module]) -> set[nn.Module]:
    """The `layers` whose output gets a gradient from the logits, by the graph of the pass.

    The gradients themselves would take minutes in bfloat16 on a CPU without AVX-512.
    """
    outputs: dict[Node, nn.Module] = {}

    def note(layer: nn.Module, _, output: object) -> None:
        if isinstance(output, Tensor) and output.grad_fn is not None:
            outputs[output.grad_fn] = layer

    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.enable_grad():
        to_follow = [read_some_tokens(llm, hooks).grad_fn]
    reached = set(to_follow)
    while to_follow:
        inputs = {node for node, _ in to_follow.pop().next_functions if node is not None}
        to_follow += inputs - reached
        reached |= inputs
    return {layer for node, layer in outputs.items() if node in reached}


def read_some_tokens(llm: PreTrainedModel, hooks: Iterable[RemovableHandle]) -> Tensor:
    """The sum of the logits of one pass, after which the `hooks` are removed."""
    embed = llm.get_input_embeddings()
    words = embed(torch.arange(TRIED_TOKENS, device=llm.device))[None]
    try:
        with attention_of_cpu(llm):
            inputs = words.requires_grad_(torch.is_grad_enabled())
            return llm(inputs_embeds=inputs, use_cache=False).logits.float().sum()
    finally:
        for hook in hooks:
            hook.remove()


def group_by_input(llm: PreTrainedModel) -> None:
    """Let LoRA layers that have one input, such as q, k and v, compute together.

    They are found by one pass. Layers with dropout, and a model without weights (on torch's meta
    device), stay as PEFT made them.
    """
    groups: dict[Tensor, list[LoRALinear]] = {}  # a tensor's hash is its identity
    layers = [layer for layer in llm.modules() if isinstance(layer, LoRALinear)]

    def note(layer: LoRALinear, inputs: tuple[Tensor]) -> None:
        groups.setdefault(inputs[0], []).append(layer)

    if llm.device.type == "meta":
        return
    plain = [x for x in layers if all(isinstance(d, nn.Identity) for d in x.lora_dropout.values())]
    with torch.no_grad():
        read_some_tokens(llm, [layer.register_forward_pre_hook(note) for layer in plain])
    for group in groups.values():
        Group(group)


def target_layers(llm: PreTrainedModel, targets: Sequence[str] | str) -> list[str]:
    """Names of the layers that `targets` choose.

    PEFT only checks that at least one target exists, so it would miss a misspelt one among several.
    """
    layers, chosen = linear_layers(llm), set()
    for target in [targets] if isinstance(targets, str) else targets:
        named = {name for name in layers if f".{name}".endswith(f".{target}")}
        if target != ALL_LINEAR and not named:
            known = {ALL_LINEAR, *(name.rpartition(".")[2] for name in layers)}
            raise PamError(f"llm_conf.lora_targets: {target!r}: {nearest(target, known)}")
        chosen |= set(layers) if target == ALL_LINEAR else named
    if not chosen:
        raise PamError(f"llm_conf.lora_targets: it is empty: give {ALL_LINEAR}, or lora_rank 0")
    return [name for name in layers if name in chosen]


def inject_lora(
    llm: PreTrainedModel, rank: int, alpha: int, dropout: float, targets: Sequence[str] | str
) -> None:
    """Add LoRA in place, its matrices in float32 and trainable; rank 0 adds nothing."""
    if not rank:
        return
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=target_layers(llm, targets)
    )
    config._register_custom_module({nn.Linear: LoRALinear})
    with warnings.catch_warnings():
        # PEFT detects Conv1D's transposed weight itself, and warns for each layer.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        try:
            inject_adapter_in_model(config, llm)
        except ValueError as error:
            raise PamError(f"llm_conf.lora_targets: {error}") from error
    for name, parameter in llm.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.float()
    group_by_input(llm)


def lora_layers(llm: nn.Module) -> list[BaseTunerLayer]:
    return [module for module in llm.modules() if isinstance(module, BaseTunerLayer)]


@contextmanager
def without_lora(llm: nn.Module) -> Iterator[None]:
    """Context in which the LLM runs without LoRA."""
    layers = lora_layers(llm)
    trained = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, flag in trained:  # PEFT makes all enabled weights trainable
            parameter.requires_grad_(flag)
