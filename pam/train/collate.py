"""From utterances to the tensors of a training batch."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pam.data.prompts import Prompts
from pam.data.utterances import pad
from pam.llm.causal_lm import CausalLM
from pam.train.iterators import Step


class Collate:
    """Pads the rows of a step, and draws each row's prompt and the numbers for its word dropout.

    `draw` is a random number of the batch (`pam.model.exits`).

    A draw depends only on the seed, the utterance and the number of the pass over its task. It does
    not depend on a generator's state, on the process, or on where epochs begin.

    Args:
        prompts: the prompts of each task by its name, in the order of the task's index.
        per_batch: number of prompts drawn for a batch. The first rows get them, and the other rows
            repeat them in turn. 0 draws one for every row. Fewer distinct prompts make the LLM's
            pass over the prompts cheaper.
        router_prompts: number of prompts that train the router for each utterance: its own and
            further ones of its task.
        banks: the draws of each task's training prompts that the steps choose from, by the task's
            name (`pam.data.prompts.banks_of`); without them, they choose from all.
        seed: of the draws. None is for validation: it takes the first prompts of each task, so that
            losses are comparable, and drops no words.
    """

    def __init__(
        self,
        llm: CausalLM,
        prompts: Mapping[str, Prompts],
        per_batch: int = 0,
        router_prompts: int = 1,
        banks: Mapping[str, Sequence[str]] | None = None,
        seed: int | None = None,
    ):
        self.llm, self.per_batch, self.banks, self.seed = llm, per_batch, banks, seed
        self.router_prompts = 1 if seed is None else router_prompts
        self.tasks, self.prompts = list(prompts), list(prompts.values())

    def __call__(
        self, loaded: tuple[Step, Sequence[tuple[str, dict[str, Tensor]]], np.ndarray]
    ) -> tuple[list[str], dict[str, Tensor]]:
        step, items, counts = loaded
        batch = {
            "task": torch.stack([row["task"] for _, row in items]),
            "counts": torch.from_numpy(counts),
        }
        sequences, lengths = pad([{k: v for k, v in r.items() if k != "task"} for _, r in items])
        batch |= sequences | {f"{name}_lengths": value for name, value in lengths.items()}
        tasks = batch["task"].tolist()
        drawn = self.draw_prompts(step, tasks)
        distinct = sorted({prompt for row in drawn for prompt in row})
        batch["prompt"], batch["prompt_lengths"] = self.llm.prompt_batch(distinct)
        batch["prompt_index"] = torch.tensor([[distinct.index(p) for p in row] for row in drawn])
        batch["experts"] = self.right_experts(drawn, tasks)
        utts = [utt for utt, _ in items]
        if self.seed is not None:
            chance = [self.draw_chance(step, utt, len(row["text"])) for utt, row in items]
            batch["chance"] = pad_sequence(chance, batch_first=True)
            number = self.number("layers", step, step.batch.utts[0])  # for all processes the same
            batch["draw"] = torch.tensor(number >> 1)
        return utts, batch

    def draw_prompts(self, step: Step, tasks: Sequence[int]) -> list[list[str]]:
        """For each row (its task is in `tasks`): its prompt, then the others for the router."""
        utts = step.batch.utts
        places = self.per_batch or len(utts)
        chosen = []
        for row, task in zip(step.rows, tasks, strict=True):
            place, known = row % places, self.prompts[task]
            if self.seed is None:
                chosen.append([known.train[place % len(known.train)]])
                continue
            purposes = ["prompt", *(f"prompt {i}" for i in range(1, self.router_prompts))]
            numbers = [self.number(purpose, step, utts[place]) for purpose in purposes]
            if self.banks:
                bank = self.banks[self.tasks[task]]
                chosen.append([bank[number % len(bank)] for number in numbers])
            else:
                chosen.append([known.draw_train(number) for number in numbers])
        return chosen

    def right_experts(
        self, prompts: Sequence[Sequence[str]], tasks: Sequence[int]
    ) -> Bool[Tensor, "B Q R"]:
        """Which experts are right for each prompt. Tasks that share a prompt are all right."""
        names = [
            [self.prompts[task].shared.get(prompt, {self.tasks[task]}) for prompt in row]
            for row, task in zip(prompts, tasks, strict=True)
        ]
        return torch.tensor([[[t in n for t in self.tasks] for n in row] for row in names])

    def draw_chance(self, step: Step, utt: str, tokens: int) -> Tensor:
        """A number in [0, 1) for each token of an answer; word dropout drops the lowest."""
        generator = np.random.default_rng(self.number("words", step, utt))
        return torch.from_numpy(generator.random(tokens, dtype=np.float32))

    def number(self, purpose: str, step: Step, utt: str) -> int:
        """A random number of 64 bits."""
        key = f"{purpose} {self.seed} {step.batch.number} {utt}".encode()
        return int.from_bytes(blake2b(key, digest_size=8).digest())
