"""The states of a choice of training prompts, read once by an LLM whose LoRA leaves prompts alone.

Such states never change. Read again in every step, the prompts cost a third of a training step of
the mini scale (egs/multitask/LOG.md).
"""

# N prompts of the bank, K prompts that are looked up, P prompt tokens, D width of the LLM

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pam.errors import PamError
from pam.llm.causal_lm import CausalLM
from pam.llm.prompts import PromptStates, stack_prompts, without_padding

READ_TOGETHER = 32


class PromptBank:
    """Prompt states by the prompt's tokens.

    Prompts are read in an order and in batches that depend on the prompts alone. So the states of a
    training that is resumed are the same to the bit.

    Args:
        llm: an LLM with `lora_on_prompt` false, else `PamError`.
        prompts: in any order; duplicates are read once.
    """

    def __init__(self, llm: CausalLM, prompts: Iterable[str]):
        if llm.lora_on_prompt:
            raise PamError(
                "prompt_bank: LoRA changes the states of prompts: set llm_conf.lora_on_prompt to "
                "false, or prompt_bank to 0"
            )
        distinct = {tuple(llm.prompt_ids(prompt)): prompt for prompt in sorted(set(prompts))}
        ordered = sorted(distinct, key=lambda ids: (len(ids), ids))
        self.place = {ids: number for number, ids in enumerate(ordered)}
        self.rows: list[PromptStates] = []
        for start in range(0, len(ordered), READ_TOGETHER):
            texts = [distinct[ids] for ids in ordered[start : start + READ_TOGETHER]]
            ids, lengths = llm.prompt_batch(texts)
            device = llm.embeddings.device
            states = llm.read_training_prompts(ids.to(device), lengths.to(device))
            self.rows += [without_padding(states, row) for row in range(len(texts))]
        self.all_pooled: Float[Tensor, "N D"] = torch.cat([row.pooled for row in self.rows])

    def move(self, device: torch.device) -> None:
        """Move all states to the LLM's device: ESPnet moves a model after it was built."""
        self.rows = [row.to(device) for row in self.rows]
        self.all_pooled = self.all_pooled.to(device)

    def states(self, ids: Int[Tensor, "K P"], lengths: Int[Tensor, " K"]) -> PromptStates:
        """The states of these prompts, which are padded on the right."""
        return stack_prompts([self.rows[place] for place in self.places(ids, lengths)])

    def pooled(self, ids: Int[Tensor, "K P"], lengths: Int[Tensor, " K"]) -> Float[Tensor, "K D"]:
        """h_prompt of these prompts."""
        return self.all_pooled[self.places(ids, lengths)]

    def places(self, ids: Int[Tensor, "K P"], lengths: Int[Tensor, " K"]) -> list[int]:
        rows = zip(ids.tolist(), lengths.tolist(), strict=True)
        return [self.place[tuple(row[:length])] for row, length in rows]
