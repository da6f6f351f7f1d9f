"""Sampling with a temperature and a nucleus (top-p), by the processors of transformers."""

# n rows, D width of the LLM, V vocabulary

import zlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from pam.decode.engine import Engine
from pam.decode.row import Row
from pam.decode.search import Strategy


class Sampling(Strategy):
    """Draws tokens. The draws of an answer follow from `seed` and the row's name alone."""

    def __init__(self, temperature: float, top_p: float, seed: int):
        self.seed = seed
        self.process = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
        if top_p < 1:
            self.process.append(TopPLogitsWarper(top_p))
        self.draws: dict[int, torch.Generator] = {}  # of each place of the engine

    def first(self, engine: Engine, rows: Sequence[Row], hidden: Float[Tensor, "n D"]) -> None:
        for row in rows:
            seed = zlib.crc32(f"{self.seed} {row.name}".encode())
            self.draws[row.place] = torch.Generator().manual_seed(seed)
        self.draw(engine, rows, hidden)

    def advance(self, engine: Engine, rows: Sequence[Row]) -> None:
        self.draw(engine, rows, engine.read([row.items([])[0] for row in rows]))
        for row in rows:
            row.passes += 1

    def draw(self, engine: Engine, rows: Sequence[Row], hidden: Float[Tensor, "n D"]) -> None:
        logits = engine.logits(hidden).cpu()
        allowed = engine.allowed(logits, [row.said for row in rows])
        weights = self.process(None, allowed).softmax(-1)
        logprobs = logits.log_softmax(-1)
        for row, own, logprob in zip(rows, weights, logprobs, strict=True):
            token = int(torch.multinomial(own, 1, generator=self.draws[row.place]))
            row.say(token, float(logprob[token]), engine.lm.eos)
