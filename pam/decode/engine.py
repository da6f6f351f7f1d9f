"""Passes of one fixed shape over single tokens of many rows.

A pass reads N tokens. Each belongs to a row and has a slot: its position in that row, after the
prompt and the audio. It attends to the slots of its row up to its own. A pass may read several
tokens of a row, since each layer stores the keys and values of all before any of them attends.

A library chooses its kernel, and so the order of its sums, by the shapes of its operands. In
bfloat16 that can change the choice between two tokens of almost equal probability. Here no shape
depends on the other rows, or on how many tokens of a row a pass reads. So the state of a token is
the same, bit for bit, in a batch and alone, in a block of drafted tokens and one by one.
"""

# N items of a pass, H heads of keys and values, S slots of a row, D width of the LLM

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin

from pam.decode.repeats import forbid_repeats
from pam.device import without_tf32
from pam.llm.causal_lm import CausalLM
from pam.llm.depth import Depth
from pam.llm.prompts import PromptStates
from pam.llm.supported import TEXT, differ, one_line

ITEMS = 32
SLOT_STEP = 64  # S is a multiple of it


class Item(NamedTuple):
    """A token to read: its row, its slot there, its id."""

    row: int
    slot: int
    token: int


@dataclass
class Pass:
    """A pass over `items`.

    Attributes:
        place: of each item among the N places.
        token: [N], with fillers.
        inputs: the decoder's arguments, besides the embeddings.
    """

    place: Int[Tensor, " n"]
    token: Int[Tensor, " N"]
    inputs: dict[str, Any]


class Engine:
    """Reads tokens of several rows of S slots.

    Args:
        lm: the LLM, best with LoRA merged into its weights.
        slots: S, at least the tokens of a row's prompt, audio and answer and one more.
        rows: at most N; fewer take less memory and change no state.
        autocast: gives the context of a pass.
        no_repeat: no answer has a sequence of so many tokens twice; 0: all may.
    """

    def __init__(
        self,
        lm: CausalLM,
        slots: int,
        rows: int = ITEMS,
        autocast: Callable = nullcontext,
        no_repeat: int = 0,
    ):
        self.lm, self.slots, self.items, self.autocast = lm, slots, ITEMS, autocast
        self.no_repeat = no_repeat
        self.cache = SlotCache(rows, slots)
        self.free = list(reversed(range(rows)))
        self.passes = 0
        device, dtype = lm.embeddings.device, lm.embeddings.dtype
        self.order = torch.arange(slots, device=device)
        self.hidden_by_mask = torch.tensor(torch.finfo(dtype).min, device=device, dtype=dtype)

    def admit(self, past: PromptStates) -> int:
        """Give a free row the keys and values of `past` (one row, no padding); returns the row."""
        row = self.free.pop()
        self.cache.fill(row, past)
        return row

    def release(self, row: int) -> None:
        self.free.append(row)

    def read(self, items: Sequence[Item]) -> Float[Tensor, "n D"]:
        """The states of the items after the LLM's last layer and final norm."""
        entered = self.enter(items)
        embeds = self.lm.embed(entered.token)[:, None]
        with self.autocast():
            out = self.lm.backbone(inputs_embeds=embeds, **entered.inputs)
        self.passes += 1
        return out.last_hidden_state[entered.place, 0]

    def read_part(
        self,
        depth: Depth,
        items: Sequence[Item],
        hidden: Float[Tensor, "n D"] | None,
        first: int,
        last: int,
        run: Callable | None = None,
    ) -> Float[Tensor, "n D"]:
        """The states after layer `last`, from those after layer `first` (None: the embeddings).

        `run`: `Depth.propagate` instead of `Depth.run`.
        """
        run = run or depth.run
        entered = self.enter(items)
        states = self.lm.embed(entered.token)
        if hidden is not None:
            states = torch.zeros_like(states)
            states[entered.place] = hidden
        with self.autocast():
            states = run(states[:, None], first, last, **entered.inputs)
        return states[entered.place, 0]

    def logits(self, hidden: Float[Tensor, "n D"]) -> Float[Tensor, "n V"]:
        """Logits of at most N states, in one product of the fixed shape."""
        rows = F.pad(hidden, (0, 0, 0, self.items - len(hidden)))
        with self.autocast():
            return self.lm.logits(rows)[: len(hidden)]

    def allowed(
        self, logits: Float[Tensor, "n V"], said: Sequence[Sequence[int]]
    ) -> Float[Tensor, "n V"]:
        """The logits without tokens that must not follow `said`, the tokens of n answers."""
        return forbid_repeats(logits, said, self.no_repeat)

    def enter(self, items: Sequence[Item]) -> Pass:
        """Place the items. If none of N rows has two, an item's place is its row, and no key is
        copied.

        Fillers read a token at the last slot, to which no row's token attends.
        """
        rows = [item.row for item in items]
        alone = len(set(rows)) == len(rows) and self.cache.rows == self.items
        place = rows if alone else range(len(items))
        filled = [Item(row % self.cache.rows, self.slots - 1, 0) for row in range(self.items)]
        for where, item in zip(place, items, strict=True):
            filled[where] = item
        row, slot, token = torch.tensor(filled, device=self.order.device).unbind(1)
        self.cache.point(row, slot, gather=not alone)
        seen = self.order <= slot[:, None]
        # A mask of numbers, not of truth values: "eager" attention adds it.
        mask = torch.where(seen, self.hidden_by_mask.new_zeros(()), self.hidden_by_mask)
        inputs = {
            "attention_mask": mask[:, None, None],
            "position_ids": slot[:, None],
            "past_key_values": self.cache,
            "use_cache": True,
        }
        return Pass(torch.tensor(list(place), device=slot.device), token, inputs)


class SlotCache(Cache):
    """Keys and values of all rows, [rows, H, S, head width] per layer, written in place."""

    def __init__(self, rows: int, slots: int):
        super().__init__(layers=[])
        self.rows, self.slots = rows, slots

    def fill(self, row: int, past: PromptStates) -> None:
        """Write the first slots of a row."""
        if not self.layers:
            pairs = zip(past.keys, past.values, strict=True)
            self.layers += [SlotLayer(self.rows, self.slots, *pair) for pair in pairs]
        for layer, key, value in zip(self.layers, past.keys, past.values, strict=True):
            layer.keys[row, :, : key.shape[2]] = key[0]
            layer.values[row, :, : value.shape[2]] = value[0]

    def copy(self, items: Sequence[Item], source: int, targets: Iterable[int]) -> None:
        """Copy the keys and values of items from one layer to others."""
        row, slot, _ = torch.tensor(items, device=self.layers[source].keys.device).unbind(1)
        for target in targets:
            for name in ("keys", "values"):
                kept = getattr(self.layers[source], name)[row, :, slot]
                getattr(self.layers[target], name)[row, :, slot] = kept

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy rows onto others, all at once."""
        if list(sources) != list(targets):
            for layer in self.layers:
                layer.keys[list(targets)] = layer.keys[list(sources)]
                layer.values[list(targets)] = layer.values[list(sources)]

    def point(self, row: Int[Tensor, " N"], slot: Int[Tensor, " N"], gather: bool) -> None:
        """Where the next pass writes. With `gather`, it reads copies of the items' rows."""
        for layer in self.layers:
            layer.row, layer.slot, layer.gather = row, slot, gather


class SlotLayer(CacheLayerMixin):
    """One layer of a `SlotCache`."""

    def __init__(self, rows: int, slots: int, *like: Float[Tensor, "1 H T width"]):
        super().__init__()
        self.keys, self.values = (x.new_zeros(rows, x.shape[1], slots, x.shape[3]) for x in like)
        self.is_initialized = True

    def lazy_initialization(self, *_) -> None:
        """The slots exist from the start."""

    def update(self, key_states: Tensor, value_states: Tensor, *_, **unused):
        # Under autocast, passes over one and over several tokens may differ in their types.
        self.keys[self.row, :, self.slot] = key_states[:, :, 0].to(self.keys.dtype)
        self.values[self.row, :, self.slot] = value_states[:, :, 0].to(self.values.dtype)
        if self.gather:
            return self.keys.index_select(0, self.row), self.values.index_select(0, self.row)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.keys.shape[2], 0

    def get_seq_length(self) -> int:
        return 0  # the engine gives positions

    def get_max_length(self) -> int:
        return self.keys.shape[2]


def shortest_window(lm: CausalLM) -> float:
    """The smallest attention window of the LLM's layers, in tokens; infinite without windows.

    A row with more slots than that cannot use the engine.
    """
    layers = DynamicCache(config=lm.llm.config).layers
    return min((getattr(layer, "sliding_window", torch.inf) for layer in layers), default=torch.inf)


@torch.no_grad()
@without_tf32()  # its rounding would look like a fault of the engine
def engine_fault(lm: CausalLM) -> str | None:
    """Why the engine cannot run this LLM; None if it can.

    The states of some tokens, read by the engine in a block and one by one, are compared with those
    of one pass over the text.
    """
    ids = torch.tensor(lm.text_ids(TEXT), device=lm.embeddings.device)
    try:
        words = lm.embed(ids)[None]
        whole = lm.backbone(inputs_embeds=words, use_cache=False).last_hidden_state[0, 2:]
        past = lm.read_prompts(ids[None, :2], torch.tensor([2], device=ids.device))
        engine = Engine(lm, SLOT_STEP)
        row = engine.admit(past)
        tokens = [Item(row, slot, int(token)) for slot, token in enumerate(ids)][2:ITEMS]
        found = engine.read(tokens), torch.cat([engine.read([item]) for item in tokens])
    except Exception as error:  # a family's code may fail in any way
        return f"{type(error).__name__}: {one_line(error)}"
    if any(differ(whole[: len(tokens)].float(), states.float(), whole.dtype) for states in found):
        return "its states of single tokens differ from those of one pass"
    return None
