"""The contract of a drafter."""

# U frames after fusion, D width of the LLM

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from pam.decode.engine import Engine
from pam.decode.row import Row
from pam.llm.causal_lm import CausalLM


class Drafter(ABC):
    """Proposes likely next tokens. Proposals never change an answer, only the passes it takes.

    Args:
        lm: the LLM that decodes.
        exit_layer: a layer, for drafters that need one.
    """

    def __init__(self, lm: CausalLM, exit_layer: int | None = None):
        self.lm = lm

    def hint(self, prompt: str, audio: Float[Tensor, "U D"]) -> Any:
        """What `propose` finds in `Row.hint`; called once for each row, before its first token."""
        return None

    @abstractmethod
    def propose(self, engine: Engine, rows: Sequence[Row], most: int) -> list[list[int]]:
        """At most `most` likely next tokens of each row, possibly none."""
