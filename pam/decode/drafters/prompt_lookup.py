"""Drafts from repetition: what followed the same tokens earlier in the prompt or the answer."""

# U frames after fusion, D width of the LLM

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from pam.decode.drafters.base import Drafter
from pam.decode.engine import Engine
from pam.decode.row import Row

LONGEST, SHORTEST = 3, 1  # tokens that must be the same


class PromptLookupDrafter(Drafter):
    def hint(self, prompt: str, audio: Float[Tensor, "U D"]) -> list[int]:
        return self.lm.prompt_ids(prompt)

    def propose(self, engine: Engine, rows: Sequence[Row], most: int) -> list[list[int]]:
        return [lookup([*row.hint, *row.said], most) for row in rows]


def lookup(tokens: Sequence[int], most: int) -> list[int]:
    """The tokens after the last earlier occurrence of the longest possible end of `tokens`."""
    for length in range(LONGEST, SHORTEST - 1, -1):
        end = tokens[len(tokens) - length :]
        for start in range(len(tokens) - length - 1, -1, -1):
            if tokens[start : start + length] == end:
                return list(tokens[start + length :][:most])
    return []
