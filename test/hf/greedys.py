"""The answers of `pam.decode.greedy`, and an exported model in this process."""

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from pam.decode.greedy import greedy
from pam.hf.modeling_pam import PaMForConditionalGeneration
from pam.hf.processing_pam import PaMProcessor
from pam.model.build import load_experiment

TOKENS = 10
# Prompts of different lengths and clips of different lengths: every row is padded somewhere.
PROMPTS = ["Write it down.", "How many speakers are there in it?", "Transcribe."]
SECONDS = [1.3, 0.5, 0.9]


def clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, round(16000 * s)).astype(np.float32) for s in SECONDS]


def greedy_tokens(exp, clips, prompts, count=TOKENS, expert=None):
    """Tokens of each row, and the names of the experts."""
    model = load_experiment(exp, online=True)
    lengths = torch.tensor([len(clip) for clip in clips])
    audio = pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
    options = {"max_new_tokens": count, "expert": expert}
    found = greedy(model, {"speech": audio}, {"speech": lengths}, prompts, **options)
    return found.tokens, found.experts


def exported(folder):
    """The model and the processor of an exported folder, with the code of this repository."""
    model = PaMForConditionalGeneration.from_pretrained(folder)
    return model, PaMProcessor.from_pretrained(folder)


def generated(model, inputs, count=TOKENS, **options):
    """New tokens of each row, without the end token and what follows it."""
    rows = model.generate(**inputs, max_new_tokens=count, **options)
    return [until_end(model, row) for row in rows[:, inputs["input_ids"].shape[1] :].tolist()]


def until_end(model, row):
    return row[: row.index(model.config.end)] if model.config.end in row else row
