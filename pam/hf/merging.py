"""The LLM of an export: LoRA in its weights, verified, or a refusal in words."""

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from pam.errors import PamError
from pam.llm.causal_lm import CausalLM
from pam.llm.lora import lora_layers
from pam.llm.merged import merged_copy
from pam.llm.supported import TEXT, change, in_one_pass

# Largest change of logits by merging, relative to how logits differ between tokens. A merged weight
# is rounded to the LLM's type.
EXACT, ROUGH = 1e-4, 0.05  # in float32, and in smaller types


def keeps_lora(lm: CausalLM) -> bool:
    """Whether LoRA acts after the prompt only, so that no weights can express it."""
    return not lm.lora_on_prompt and bool(lora_layers(lm.llm))


def adapted_layers(lm: CausalLM) -> dict[str, BaseTunerLayer]:
    """The layers with LoRA, by name."""
    named = lm.llm.named_modules()
    return {name: layer for name, layer in named if isinstance(layer, BaseTunerLayer)}


def refuse_kept_lora(lm: CausalLM, target: str) -> None:
    """`PamError` if LoRA cannot be merged, with what to train instead."""
    if keeps_lora(lm):
        raise PamError(
            f"--to {target}: this model's LoRA leaves the prompt alone, which no weights can "
            "express: use --to hf, or train with --set llm_conf.lora_on_prompt=true"
        )


@torch.no_grad()
def merged_llm(lm: CausalLM) -> PreTrainedModel:
    """The LLM with LoRA in its weights. `PamError` if that changes its logits too much."""
    if not lora_layers(lm.llm):
        return lm.llm
    merged = merged_copy(lm)
    words = lm.embed(torch.tensor(lm.text_ids(TEXT), device=lm.embeddings.device))
    changed = change(in_one_pass(lm, inputs_embeds=words), in_one_pass(merged, inputs_embeds=words))
    limit = EXACT if lm.embeddings.dtype == torch.float32 else ROUGH
    if not changed <= limit:
        raise PamError(
            f"merging LoRA changes the LLM's logits by {changed:.2%}, more than {limit:.2%}: "
            "load the LLM in a wider type (llm_conf.dtype: float32 in the experiment's config.yaml)"
        )
    return merged.llm
