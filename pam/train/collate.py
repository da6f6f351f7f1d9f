"""From a data directory's entries to the tensors of a batch."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pam.data.archive import load
from pam.data.audio import load_audio
from pam.data.prompts import Prompts
from pam.llm.causal_lm import CausalLM
from pam.model.speech_llm import AUDIO
from pam.train.iterators import Step


class Preprocess:
    """Turns the text fields of an utterance into arrays: ESPnet's dataset reads every file as text.

    Archive pointers become encoder states [T, S·C], a path becomes samples [N], an answer becomes
    token ids, a task becomes its index.
    """

    def __init__(self, llm: CausalLM, tasks: Sequence[str], encoders: Sequence[str], end: bool):
        self.llm, self.tasks, self.encoders, self.end = llm, list(tasks), list(encoders), end

    def __call__(self, utt: str, data: Mapping[str, str]) -> dict[str, np.ndarray]:
        ids = self.answer_ids(data["text"])
        out = {"text": np.array(ids), "task": np.array([self.tasks.index(data["task"])])}
        for name in self.encoders:
            if name in data:
                out[name] = load(data[name])
        if AUDIO in data:
            out[AUDIO] = load_audio(data[AUDIO])
        return out

    def answer_ids(self, text: str) -> list[int]:
        """The tokens that an answer is trained on."""
        return self.llm.answer_ids(text) + ([self.llm.eos] if self.end else [])


class Collate:
    """Pads the rows of a step, and draws a prompt and the words to hide for each of them.

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
            can be compared, and hides no word.
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
        self, loaded: tuple[Step, Sequence[tuple[str, dict[str, np.ndarray]]], np.ndarray]
    ) -> tuple[list[str], dict[str, Tensor]]:
        step, items, counts = loaded
        data = [arrays for _, arrays in items]
        batch = {"task": torch.tensor([int(d["task"][0]) for d in data])}
        batch["counts"] = torch.from_numpy(counts)
        for name in data[0].keys() - {"task"}:
            batch[name], batch[f"{name}_lengths"] = padded([d[name] for d in data])
        tasks = batch["task"].tolist()
        drawn = self.draw_prompts(step, tasks)
        distinct = sorted({prompt for row in drawn for prompt in row})
        batch["prompt"], batch["prompt_lengths"] = self.llm.prompt_batch(distinct)
        batch["prompt_index"] = torch.tensor([[distinct.index(p) for p in row] for row in drawn])
        batch["experts"] = self.right_experts(drawn, tasks)
        utts = [utt for utt, _ in items]
        if self.seed is not None:
            chance = [self.draw_chance(step, utt, len(d["text"])) for utt, d in items]
            batch["chance"], _ = padded(chance)
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

    def draw_chance(self, step: Step, utt: str, tokens: int) -> np.ndarray:
        """A number in [0, 1) for each token of an answer; the lowest are hidden."""
        generator = np.random.default_rng(self.number("words", step, utt))
        return generator.random(tokens, dtype=np.float32)

    def number(self, purpose: str, step: Step, utt: str) -> int:
        """A random number of 64 bits."""
        key = f"{purpose} {self.seed} {step.batch.number} {utt}".encode()
        return int.from_bytes(blake2b(key, digest_size=8).digest())


def padded(arrays: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Arrays as a tensor, padded with zeros behind, and their lengths."""
    rows = [torch.from_numpy(np.asarray(array)) for array in arrays]
    return pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])
