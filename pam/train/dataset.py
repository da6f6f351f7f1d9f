"""Utterances as training and validation read them: answers as tokens, with audio or states."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pam.data.utterances import Inputs
from pam.llm.causal_lm import CausalLM


class TrainingSet:
    """Maps an utterance's id to its training tensors.

    Args:
        texts, utt2task: answer and task of every utterance.
        tasks: names of the tasks; a task is given as its index in this list.
        end: whether answers end with the end token.
    """

    def __init__(
        self,
        llm: CausalLM,
        tasks: Sequence[str],
        texts: Mapping[str, str],
        utt2task: Mapping[str, str],
        inputs: Inputs,
        end: bool,
    ):
        self.llm, self.tasks, self.texts, self.utt2task = llm, list(tasks), texts, utt2task
        self.inputs, self.end = inputs, end

    def __getitem__(self, utt: str) -> dict[str, Tensor]:
        """`text` [Y] (token ids), `task` [] and the utterance's inputs."""
        numbers = {
            "text": torch.tensor(self.answer_ids(utt), dtype=torch.long),
            "task": torch.tensor(self.tasks.index(self.utt2task[utt])),
        }
        return numbers | self.inputs[utt]

    def answer_ids(self, utt: str) -> list[int]:
        """The target tokens of an utterance's answer."""
        return self.llm.answer_ids(self.texts[utt]) + ([self.llm.eos] if self.end else [])
