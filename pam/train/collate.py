"""From a data directory's entries to the tensors of a batch."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pam.data.archive import load
from pam.data.audio import load_audio
from pam.data.prompts import Prompts
from pam.llm.causal_lm import CausalLM
from pam.model.speech_llm import AUDIO, FRAMES


class Preprocess:
    """Turns the text fields of an utterance into arrays: ESPnet's dataset reads every file as text.

    Archive pointers become encoder states [T, S·C], a path becomes samples [N], an answer becomes
    token ids, a task becomes its index, the frames at 25 Hz a number.
    """

    def __init__(self, llm: CausalLM, tasks: Sequence[str], encoders: Sequence[str], end: bool):
        self.llm, self.tasks, self.encoders, self.end = llm, list(tasks), list(encoders), end

    def __call__(self, utt: str, data: Mapping[str, str]) -> dict[str, np.ndarray]:
        ids = self.llm.answer_ids(data["text"]) + ([self.llm.eos] if self.end else [])
        out = {"text": np.array(ids), "task": np.array([self.tasks.index(data["task"])])}
        for name in self.encoders:
            if name in data:
                out[name] = load(data[name])
        if AUDIO in data:
            out[AUDIO] = load_audio(data[AUDIO])
        if FRAMES in data:
            out[FRAMES] = np.array([int(data[FRAMES])])
        return out


class Collate:
    """Pads a batch and draws its prompts.

    Args:
        prompts: the prompts of each task, in the order of the task's index.
        per_batch: draw this many prompts for a batch, which its utterances share in turn;
            0 draws one for every utterance. Fewer distinct prompts are a shorter prompt pass.
        fixed: take each task's first prompts, so that a validation loss can be compared.
    """

    def __init__(
        self, llm: CausalLM, prompts: Sequence[Prompts], per_batch: int = 0, fixed: bool = False
    ):
        self.llm, self.per_batch, self.fixed = llm, per_batch, fixed
        self.prompts = [p.train for p in prompts]

    def __call__(
        self, items: Sequence[tuple[str, dict[str, np.ndarray]]]
    ) -> tuple[list[str], dict[str, Tensor]]:
        utts = [utt for utt, _ in items]
        data = [arrays for _, arrays in items]
        numbers = data[0].keys() & {"task", FRAMES}
        batch = {name: torch.tensor([int(d[name][0]) for d in data]) for name in numbers}
        for name in data[0].keys() - numbers:
            rows = [torch.from_numpy(np.asarray(d[name])) for d in data]
            batch[name] = pad_sequence(rows, batch_first=True)
            batch[f"{name}_lengths"] = torch.tensor([len(row) for row in rows])
        drawn = self.draw(batch["task"].tolist())
        distinct = sorted(set(drawn))
        batch["prompt"], batch["prompt_lengths"] = self.llm.prompt_batch(distinct)
        batch["prompt_index"] = torch.tensor([distinct.index(prompt) for prompt in drawn])
        return utts, batch

    def draw(self, tasks: Sequence[int]) -> list[str]:
        """A prompt for every row (numpy's global generator, which ESPnet seeds by epoch)."""
        places = self.per_batch or len(tasks)
        numbers = np.arange(places) if self.fixed else np.random.randint(0, 2**31, places)
        return [
            self.prompts[task][numbers[row % places] % len(self.prompts[task])]
            for row, task in enumerate(tasks)
        ]
