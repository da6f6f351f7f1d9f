"""Drafts of the LLM's first layers through its own final norm and head (self-speculation).

This is the lossless form of early exit (arXiv 2412.01455): the later layers check what the first
layers propose. No layer is added.
"""

from collections.abc import Sequence

from pam.decode.drafters.base import Drafter
from pam.decode.engine import Engine, Item
from pam.decode.row import Row
from pam.errors import PamError
from pam.llm.causal_lm import CausalLM
from pam.llm.depth import Depth

LONGEST = 4  # tokens of a draft: each costs a pass of the first layers


class ExitLayerDrafter(Drafter):
    def __init__(self, lm: CausalLM, exit_layer: int | None = None):
        super().__init__(lm)
        self.depth = Depth(lm)
        self.layer = len(self.depth) // 2 if exit_layer is None else exit_layer
        if not 1 <= self.layer < len(self.depth):
            raise PamError(
                f"exit_layer {self.layer}: must be 1 to {len(self.depth) - 1}, below the last layer"
            )

    def propose(self, engine: Engine, rows: Sequence[Row], most: int) -> list[list[int]]:
        """One token after the other; a row stops where the first layers end the answer."""
        drafts: list[list[int]] = [[] for _ in rows]
        going = list(range(len(rows)))
        for step in range(min(most, LONGEST)):
            items = [rows[row].items(drafts[row])[-1] for row in going]
            tokens = self.next_tokens(engine, items)
            for row, token in zip(going, tokens, strict=True):
                if token != self.lm.eos and len(rows[row].said) + step + 1 < rows[row].limit:
                    drafts[row].append(token)
            going = [row for row in going if len(drafts[row]) == step + 1]
            if not going:
                break
        return drafts

    def next_tokens(self, engine: Engine, items: Sequence[Item]) -> list[int]:
        hidden = engine.read_part(self.depth, items, None, 0, self.layer)
        return engine.logits(self.depth.norm(hidden)).argmax(-1).tolist()
