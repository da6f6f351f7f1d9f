"""Passes over single tokens: as one pass over the text, whatever else the pass reads."""

import pytest
import torch

from pam.decode.engine import ITEMS, Engine, Item
from pam.llm.causal_lm import CausalLM
from pam.llm.merged import merged_copy
from pam.llm.prompts import PromptStates

TEXTS = ["Is it so?", "What can be heard in this clip?", "a b"]


@pytest.fixture
def lm(tiny_model) -> CausalLM:
    return merged_copy(tiny_model.llm)


def past_of(lm, ids) -> PromptStates:
    """The keys and values of the first two tokens."""
    return lm.read_prompts(torch.tensor([ids[:2]]), torch.tensor([2]))


def begin(lm, rows=ITEMS) -> tuple[Engine, list[list[Item]]]:
    """An engine that has read the beginning of each text, and the items that remain."""
    engine, items = Engine(lm, 64, rows), []
    for text in TEXTS:
        ids = lm.text_ids(text)
        row = engine.admit(past_of(lm, ids))
        items.append([Item(row, slot, token) for slot, token in enumerate(ids)][2:])
    return engine, items


@torch.no_grad()
@pytest.mark.parametrize("rows", [3, ITEMS])
def test_tokens_have_the_states_of_one_pass_over_the_text(lm, rows):
    engine, items = begin(lm, rows)
    for text, own in zip(TEXTS, items, strict=True):
        words = lm.embed(torch.tensor([lm.text_ids(text)]))
        expected = lm.backbone(inputs_embeds=words).last_hidden_state[0, 2:]
        torch.testing.assert_close(engine.read(own[:ITEMS]), expected[:ITEMS])


@torch.no_grad()
def test_a_block_gives_what_single_tokens_give(lm):
    """In float32 to the last bit: alone, with other rows, several at once, with fewer rows."""
    engine, items = begin(lm)
    alone = [torch.cat([engine.read([item]) for item in own]) for own in items]
    engine, items = begin(lm)
    blocks = [engine.read(own) for own in items]
    engine, items = begin(lm, rows=3)
    together = [[] for _ in items]
    for step in range(max(map(len, items))):
        going = [row for row, own in enumerate(items) if step < len(own)]
        for row, state in zip(going, engine.read([items[row][step] for row in going]), strict=True):
            together[row].append(state)
    for row in range(len(TEXTS)):
        assert torch.equal(blocks[row], alone[row])
        assert torch.equal(torch.stack(together[row]), alone[row])


@torch.no_grad()
def test_rejected_tokens_leave_no_trace(lm):
    engine, (_, items, _) = begin(lm)
    expected = engine.read(items)
    engine, (_, items, _) = begin(lm)
    wrong = [item._replace(token=item.token + 1) for item in items]
    assert not torch.equal(engine.read(wrong), expected)
    assert torch.equal(engine.read(items), expected)


@torch.no_grad()
def test_a_place_is_used_again(lm):
    engine, (first, second, _) = begin(lm, rows=3)
    expected = engine.read(second)
    engine.read(first)
    engine.release(first[0].row)
    ids = lm.text_ids(TEXTS[1])
    row = engine.admit(past_of(lm, ids))
    assert row == first[0].row
    again = [item._replace(row=row) for item in second]
    assert torch.equal(engine.read(again), expected)


@torch.no_grad()
def test_layers_in_parts_give_the_whole(lm):
    from pam.llm.depth import Depth

    depth = Depth(lm)
    engine, (_, items, _) = begin(lm)
    expected = engine.read(items)
    engine, (_, items, _) = begin(lm)
    hidden = None
    for layer in range(len(depth)):
        hidden = engine.read_part(depth, items, hidden, layer, layer + 1)
    assert torch.equal(depth.norm(hidden), expected)
