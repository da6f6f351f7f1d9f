"""Drafts from the audio: CTC over the fused features, scored against the LLM's token embeddings.

The warm-up trains the features with this CTC (`pam.model.ctc`), so its best path is a rough
transcript in the LLM's own tokens, and no further model is needed. The draft continues the path
after the part that is closest to the answer so far. So it finds its way back after a mistake.
"""

# U frames after fusion, D width of the LLM

from collections.abc import Sequence
from itertools import groupby

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pam.decode.drafters.base import Drafter
from pam.decode.engine import Engine
from pam.decode.row import Row
from pam.llm.causal_lm import CausalLM
from pam.model.ctc import BLANK_BIAS, SCALE


class CTCDrafter(Drafter):
    def __init__(self, lm: CausalLM, exit_layer: int | None = None):
        super().__init__(lm)
        self.norms = lm.embeddings.float().norm(dim=-1).clamp(min=1e-6)

    def hint(self, prompt: str, audio: Float[Tensor, "U D"]) -> "Alignment | Tensor":
        return audio  # its path is only computed if there is a place for drafts

    def best_path(self, audio: Float[Tensor, "U D"]) -> list[int]:
        """The most probable token of each frame, repetitions joined and blanks removed."""
        embeddings = self.lm.embeddings
        unit = F.normalize(audio.float(), dim=-1)
        cosine = (unit.to(embeddings.dtype) @ embeddings.T).float() / self.norms
        cosine[:, self.lm.space] += BLANK_BIAS / SCALE
        return [token for token, _ in groupby(cosine.argmax(-1).tolist()) if token != self.lm.space]

    def propose(self, engine: Engine, rows: Sequence[Row], most: int) -> list[list[int]]:
        for row in rows:
            if not isinstance(row.hint, Alignment):
                row.hint = Alignment(self.best_path(row.hint))
        return [row.hint.draft(row.said, most) for row in rows]


class Alignment:
    """Finds the part of `path` that is closest to a growing answer.

    costs[j] is the edit distance between the answer and path[:j].
    """

    def __init__(self, path: Sequence[int]):
        self.path, self.costs, self.seen = list(path), list(range(len(path) + 1)), 0

    def draft(self, said: Sequence[int], most: int) -> list[int]:
        """The next tokens of the path; of equally close parts, the longest counts."""
        for token in said[self.seen :]:
            self.costs = self.after(token)
        self.seen = len(said)
        best = min(range(len(self.costs)), key=lambda j: (self.costs[j], -j))
        return self.path[best : best + most]

    def after(self, token: int) -> list[int]:
        """The costs if the answer gets another token."""
        costs = [self.costs[0] + 1]
        for j, other in enumerate(self.path):
            kept = self.costs[j] + (token != other)
            costs.append(min(kept, costs[j] + 1, self.costs[j + 1] + 1))
        return costs
