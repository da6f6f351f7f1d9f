"""A copy of the LLM for decoding: LoRA in the weights, one product where training has three."""

import copy

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from pam.llm.causal_lm import CausalLM


def merged_copy(lm: CausalLM) -> CausalLM:
    """A copy of `lm` that reads with LoRA merged into its weights; `lm` stays as it is.

    The copies share all weights that LoRA leaves alone. A merged weight is rounded to the type of
    the LLM, so states differ from those of `lm` by rounding. If LoRA leaves the prompt alone
    (`lora_on_prompt: false`), only `lm` can read prompts. Attention is "sdpa" where the LLM has it.
    """
    merged = copy.copy(lm)
    llm = merge_lora(lm.llm)
    llm.set_attn_implementation("sdpa" if llm._supports_sdpa else "eager")
    merged._modules, merged.fast = lm._modules | {"llm": llm}, None
    return merged


@torch.no_grad()
def merge_lora(llm: PreTrainedModel) -> PreTrainedModel:
    """A copy of `llm` whose adapted layers hold W + (α / r) · B · A."""
    tensors = [*llm.parameters(), *llm.buffers()]
    merged = copy.deepcopy(llm, {id(tensor): tensor for tensor in tensors})
    for module in list(merged.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, LoraLayer):
                setattr(module, name, merged_layer(layer))
    return merged.eval()


def merged_layer(layer: LoraLayer) -> nn.Module:
    base = layer.get_base_layer()
    (adapter,) = layer.active_adapters
    wide = torch.promote_types(base.weight.dtype, torch.float32)
    weight = base.weight.to(wide) + layer.get_delta_weight(adapter).to(wide)
    merged = copy.copy(base)
    merged._parameters = dict(base._parameters)  # the copy shares them with its original
    merged.weight = nn.Parameter(weight.to(base.weight.dtype), requires_grad=False)
    return merged
