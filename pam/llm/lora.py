"""LoRA in a frozen LLM: which layers it adapts, and the LLM without it."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pam.errors import UserError
from pam.table import nearest

ALL_LINEAR = "all-linear"  # PEFT's name
LINEAR = (nn.Linear, Conv1D)  # Conv1D: GPT-2's linear layer, its weight transposed


def linear_layers(llm: PreTrainedModel) -> list[str]:
    """Names of the linear layers of the text decoder; not the LM head, nor a vision tower's."""
    decoder = set(llm.get_decoder().modules()) - {llm.get_output_embeddings()}
    return [n for n, m in llm.named_modules() if m in decoder and isinstance(m, LINEAR)]


def target_layers(llm: PreTrainedModel, targets: Sequence[str] | str) -> list[str]:
    """Names of the layers that `targets` choose.

    PEFT asks only that some target exists: a misspelt one of several would go unnoticed.
    """
    layers, chosen = linear_layers(llm), set()
    for target in [targets] if isinstance(targets, str) else targets:
        named = {name for name in layers if f".{name}".endswith(f".{target}")}
        if target != ALL_LINEAR and not named:
            known = {ALL_LINEAR, *(name.rpartition(".")[2] for name in layers)}
            raise UserError(f"llm_conf.lora_targets: {target!r}: {nearest(target, known)}")
        chosen |= set(layers) if target == ALL_LINEAR else named
    if not chosen:
        raise UserError(f"llm_conf.lora_targets: names no layer: give {ALL_LINEAR}, or lora_rank 0")
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
    with warnings.catch_warnings():
        # PEFT sees for itself that Conv1D's weight is transposed, and says so for each layer.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        try:
            inject_adapter_in_model(config, llm)
        except ValueError as error:
            raise UserError(f"llm_conf.lora_targets: {error}") from error
    for name, parameter in llm.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.float()


def lora_layers(llm: nn.Module) -> list[BaseTunerLayer]:
    return [module for module in llm.modules() if isinstance(module, BaseTunerLayer)]


@contextmanager
def without_lora(llm: nn.Module) -> Iterator[None]:
    """The pretrained LLM while the context lasts."""
    layers = lora_layers(llm)
    trained = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, flag in trained:  # PEFT would train all that it enables
            parameter.requires_grad_(flag)
