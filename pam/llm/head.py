"""An LLM of transformers in two halves: its decoder, and what comes after it."""

# B batch, T positions, D width of the LLM, V vocabulary

import copy

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast


def logits_of(llm: PreTrainedModel, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
    """The LLM's own logits (with its scaling or capping) for the given states only."""
    rows = hidden.reshape(1, -1, hidden.shape[-1])
    logits = head_of(llm)(inputs_embeds=rows, use_cache=False).logits
    return logits.view(*hidden.shape[:-1], -1).float()


def head_of(llm: PreTrainedModel) -> nn.Module:
    """The part of the LLM after its decoder: a copy without the decoder that shares the weights."""
    head = copy.copy(llm)
    head._modules = llm._modules | {backbone_name(llm): GivenStates()}
    return head


def backbone_name(llm: PreTrainedModel) -> str:
    """The attribute name of the LLM's decoder. (Llama 4's prefix is that of another class.)"""
    return next(n for n in (llm.base_model_prefix, "model") if n in llm._modules)


class GivenStates(nn.Module):
    """Replaces the decoder: it returns `inputs_embeds` as its states."""

    def forward(self, *_, inputs_embeds: Float[Tensor, "B T D"], **unused) -> "GivenOutput":
        return GivenOutput(last_hidden_state=inputs_embeds)

    @property
    def decoder(self) -> "GivenStates":
        """Needed because some families' heads get the states from a part of the decoder."""
        return self


class GivenOutput(BaseModelOutputWithPast):
    """An output of the decoder with states only: every other attribute is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
