"""LoRA that acts after the prompt only (`lora_on_prompt: false`): it cannot be merged."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from transformers import PreTrainedModel

from pam.llm.lora import group_by_input, inject_lora, without_lora


class PromptLora:
    """LoRA layers in `llm`, whose matrices come later.

    Args:
        rank, alpha: as in training.
        targets: full names of the adapted layers.
    """

    def __init__(self, llm: PreTrainedModel, rank: int, alpha: int, targets: Sequence[str]):
        self.llm = llm
        inject_lora(llm, rank, alpha, 0.0, targets)

    def off(self) -> AbstractContextManager:
        """Context of a pass over prompts: the LLM runs without LoRA."""
        return without_lora(self.llm)

    def loaded(self) -> None:
        """Compute as in training, once the weights are there."""
        group_by_input(self.llm)
