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
    """Pads the rows of a step, and draws a prompt and the words to drop for each of them.

    What is drawn depends on the seed, the utterance, and how often its task was passed over: on no
    generator's state, on no process, and not on the epochs that a run is cut into.

    Args:
        prompts: the prompts of each task by its name, in the order of the task's index.
        per_batch: so many prompts are drawn for a batch, those of its first utterances, which all
            others share in turn; 0 draws one for every utterance. Fewer distinct prompts are a
            shorter prompt pass.
        router_prompts: from so many prompts the router learns for each utterance: from its own,
            and from further ones of its task.
        seed: of the draws; None, for validation, takes each task's first prompts, so that losses
            can be compared, and drops no word.
    """

    def __init__(
        self,
        llm: CausalLM,
        prompts: Mapping[str, Prompts],
        per_batch: int = 0,
        router_prompts: int = 1,
        seed: int | None = None,
    ):
        self.llm, self.per_batch, self.seed = llm, per_batch, seed
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
        return utts, batch

    def draw_prompts(self, step: Step, tasks: Sequence[int]) -> list[list[str]]:
        """For every row, of `tasks`, its prompt, and the further ones that teach the router."""
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
            chosen.append([known.draw_train(number) for number in numbers])
        return chosen

    def right_experts(
        self, prompts: Sequence[Sequence[str]], tasks: Sequence[int]
    ) -> Bool[Tensor, "B Q R"]:
        """The experts that are right for each prompt: its task's, of some requests others' too."""
        names = [
            [self.prompts[task].shared.get(prompt, {self.tasks[task]}) for prompt in row]
            for row, task in zip(prompts, tasks, strict=True)
        ]
        return torch.tensor([[[t in n for t in self.tasks] for n in row] for row in names])

    def draw_chance(self, step: Step, utt: str, tokens: int) -> Tensor:
        """A number in [0, 1) for each token of an answer; the lowest are hidden."""
        generator = np.random.default_rng(self.number("words", step, utt))
        return torch.from_numpy(generator.random(tokens, dtype=np.float32))

    def number(self, purpose: str, step: Step, utt: str) -> int:
        """A random number of 64 bits."""
        key = f"{purpose} {self.seed} {step.batch.number} {utt}".encode()
        return int.from_bytes(blake2b(key, digest_size=8).digest())
