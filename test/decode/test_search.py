"""The search with any drafter gives the tokens of greedy search, in fewer passes."""

import random

import pytest
import torch
from transformers import DynamicCache

from pam.decode.drafters import DRAFTERS
from pam.decode.drafters.base import Drafter
from pam.decode.drafters.ctc import Alignment, CTCDrafter
from pam.decode.drafters.exit_layer import LONGEST, ExitLayerDrafter
from pam.decode.drafters.prompt_lookup import lookup
from pam.decode.engine import ITEMS, Engine
from pam.decode.row import Row
from pam.decode.search import SHORTEST_DRAFT, TRIAL, Greedy, search
from pam.errors import PamError
from pam.llm.merged import merged_copy
from pam.llm.prompts import PromptStates

LIMITS = [25, 1, 9, 40, 2]


@pytest.fixture
def lm(tiny_model):
    return merged_copy(tiny_model.llm.double())


def words_of(number: int) -> list[int]:
    return [1 + (7 * number + 3 * place) % 250 for place in range(2 + number % 5)]


@torch.no_grad()
def past_of(lm, ids) -> PromptStates:
    cache = DynamicCache()
    embeds = lm.embed(torch.tensor([ids]))
    out = lm.backbone(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
    layers = cache.layers
    mask = torch.ones(1, len(ids), dtype=torch.bool)
    keys, values = [x.keys for x in layers], [x.values for x in layers]
    return PromptStates(out.last_hidden_state[:, -1], keys, values, mask)


def rows_of(lm, count: int, hint=None):
    """Rows are made when the search asks for them."""
    for number in range(count):
        yield Row(number, past_of(lm, words_of(number)), LIMITS[number % len(LIMITS)], hint=hint)


@pytest.fixture
def plain(lm):
    return greedy_tokens(lm)


def greedy_tokens(lm, no_repeat: int = 0):
    """Greedy tokens of a row: the whole text again for every token."""
    known = {}

    def repeats(said: list[int], token: int) -> bool:
        end = [*said, token][-no_repeat:]
        return any(said[at : at + no_repeat] == end for at in range(len(said) - no_repeat + 1))

    @torch.no_grad()
    def tokens(number: int) -> list[int]:
        if number not in known:
            ids, said = words_of(number), []
            while len(said) < LIMITS[number % len(LIMITS)]:
                embeds = lm.embed(torch.tensor([ids + said]))
                hidden = lm.backbone(inputs_embeds=embeds, use_cache=False).last_hidden_state
                ranked = lm.logits(hidden[0, -1]).argsort(descending=True).tolist()
                token = next(x for x in ranked if not (no_repeat and repeats(said, x)))
                if token == lm.eos:
                    break
                said.append(token)
            known[number] = said
        return known[number]

    return tokens


class Oracle(Drafter):
    """Proposes the right tokens, each wrong with a probability, and more than the answer has."""

    def __init__(self, lm, plain, wrong: float):
        super().__init__(lm)
        self.plain, self.wrong, self.draw = plain, wrong, random.Random(0)

    def propose(self, engine, rows, most):
        drafts = []
        for row in rows:
            right = [*self.plain(row.key)[len(row.said) :], *[5] * 9][: self.draw.randint(0, most)]
            drafts.append([self.spoilt(token) for token in right])
        return drafts

    def spoilt(self, token: int) -> int:
        return 1 + token % 250 if self.draw.random() < self.wrong else token


@pytest.mark.parametrize("rows", [1, 5, ITEMS, 45])
@pytest.mark.parametrize("wrong", [None, 0.0, 0.3, 1.0])
def test_the_tokens_are_those_of_greedy_search(lm, plain, rows, wrong):
    """In float64, whatever is accepted; 45 rows do not fit at once."""
    drafter = None if wrong is None else Oracle(lm, plain, wrong)
    found = {row.key: row for row in search(Engine(lm, 128), rows_of(lm, rows), Greedy(drafter))}
    assert {key: row.said for key, row in found.items()} == {n: plain(n) for n in range(rows)}
    for row in found.values():
        assert row.accepted <= row.drafted and row.passes + row.accepted >= len(row.said) - 1
        assert wrong != 1.0 or row.accepted == 0


@pytest.mark.parametrize("wrong", [None, 0.3])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_sequence_comes_twice(lm, plain, size, wrong):
    """With and without drafts, of which some are right until a token that is forbidden."""
    expected = greedy_tokens(lm, size)
    drafter = None if wrong is None else Oracle(lm, plain, wrong)
    engine = Engine(lm, 128, no_repeat=size)
    found = {row.key: row.said for row in search(engine, rows_of(lm, 7), Greedy(drafter))}
    assert found == {number: expected(number) for number in range(7)}
    assert found != {number: plain(number) for number in range(7)}, "the test forbids nothing"


def test_lengths_vary_so_that_the_test_means_something(plain):
    assert len({len(plain(number)) for number in range(45)}) > 4


@pytest.mark.parametrize("memory", [1, 2, 7])
def test_fewer_rows_at_once_give_the_same(lm, plain, memory):
    found = {row.key: row.said for row in search(Engine(lm, 128, memory), rows_of(lm, 9), Greedy())}
    assert found == {number: plain(number) for number in range(9)}


def test_a_right_draft_saves_passes(lm, plain):
    """One row: every pass reads its last token and up to ITEMS - 1 drafted ones."""

    class Right(Oracle):
        def propose(self, engine, rows, most):
            return [self.plain(row.key)[len(row.said) :][:most] for row in rows]

    number = 3  # up to 40 tokens
    assert len(plain(number)) > 8
    engine = Engine(lm, 128)
    rows = (row for row in rows_of(lm, 4) if row.key == number)
    (row,) = search(engine, rows, Greedy(Right(lm, plain, 0.0)))
    assert row.said == plain(number)
    assert engine.passes == row.passes <= -(-(len(row.said) + 1) // ITEMS) + 1


def test_a_row_whose_drafts_are_refused_gets_no_more(lm, plain):
    """After some passes; a row with good drafts keeps them."""
    asked = []

    class Wrong(Oracle):
        def propose(self, engine, rows, most):
            asked.append([row.key for row in rows])
            return [
                self.plain(row.key)[len(row.said) :][:2] if row.key == 3 else [5] for row in rows
            ]

    found = {
        row.key: row for row in search(Engine(lm, 128), rows_of(lm, 4), Greedy(Wrong(lm, plain, 0)))
    }
    assert {key: row.said for key, row in found.items()} == {n: plain(n) for n in range(4)}
    assert asked[0] != [3] and asked[-1] == [3]
    refused = [row for key, row in found.items() if key != 3 and row.accepted == 0]
    assert refused and all(row.tried == row.drafted <= TRIAL for row in refused)


def test_a_row_that_had_no_place_for_drafts_gets_them_when_others_end(lm, plain):
    """32 rows leave no place; the last ones do, however many passes they have had."""
    asked = []

    class Right(Oracle):
        def propose(self, engine, rows, most):
            asked.append((len(rows), most))
            return [self.plain(row.key)[len(row.said) :][:most] for row in rows]

    found = list(search(Engine(lm, 128), rows_of(lm, ITEMS), Greedy(Right(lm, plain, 0.0))))
    assert all(most >= SHORTEST_DRAFT for _, most in asked)
    assert any(row.passes - row.tried >= TRIAL and row.tried for row in found)


def test_logprob_is_that_of_the_tokens(lm, plain):
    drafter = Oracle(lm, plain, 0.3)
    for row in search(Engine(lm, 128), rows_of(lm, 5), Greedy(drafter)):
        ids, tokens = words_of(row.key), [*row.said, lm.eos]
        with torch.no_grad():
            embeds = lm.embed(torch.tensor([ids + row.said]))
            hidden = lm.backbone(inputs_embeds=embeds, use_cache=False).last_hidden_state[0]
            logprobs = lm.logits(hidden[len(ids) - 1 :]).log_softmax(-1)
        ended = len(row.said) < LIMITS[row.key % len(LIMITS)]
        expected = sum(float(logprobs[n, t]) for n, t in enumerate(tokens[: len(row.said) + ended]))
        assert row.logprob == pytest.approx(expected, rel=1e-4)


def test_rows_at_once_are_as_many_as_fit(lm):
    """A row is only made when there is a place for it."""
    made = []
    rows = (made.append(row.key) or row for row in rows_of(lm, 12))
    found = search(Engine(lm, 128, rows=3), rows, Greedy())
    next(found)
    assert len(made) <= 5
    assert len(list(found)) == 11


@pytest.mark.parametrize("layer", [1, None])
def test_first_layers_draft(lm, plain, layer):
    drafter = ExitLayerDrafter(lm, layer)
    assert drafter.layer == 1
    found = {row.key: row for row in search(Engine(lm, 128), rows_of(lm, 9), Greedy(drafter))}
    assert {key: row.said for key, row in found.items()} == {n: plain(n) for n in range(9)}
    assert sum(row.drafted for row in found.values()) > 0


@torch.no_grad()
def test_first_layers_draft_what_they_predict(lm):
    """Against a pass over the whole text through one layer."""
    drafter, engine = ExitLayerDrafter(lm, 1), Engine(lm, 128)
    (row,) = [row for row in rows_of(lm, 4) if row.key == 3]
    ids = words_of(3)
    row.start, row.place = len(ids), engine.admit(row.past)
    row.said = [17]
    (draft,) = drafter.propose(engine, [row], 31)
    assert len(draft) == LONGEST
    for step, token in enumerate(draft):
        embeds = lm.embed(torch.tensor([[*ids, 17, *draft[:step]]]))
        hidden = drafter.depth.run(embeds, 0, 1, use_cache=False)[0, -1]
        assert token == int(drafter.depth.logits(hidden).argmax())


@pytest.mark.parametrize("layer", [0, 2, 3, -1])
def test_an_exit_layer_is_below_the_last(lm, layer):
    with pytest.raises(PamError, match=f"exit_layer {layer}: must be 1 to 1, below the last"):
        ExitLayerDrafter(lm, layer)


def test_lookup_continues_the_last_occurrence_of_the_longest_end():
    assert lookup([1, 2, 3, 4, 1, 2, 3], 2) == [4, 1]
    assert lookup([9, 3, 5, 1, 3, 6, 2, 3], 3) == [6, 2, 3]
    assert lookup([1, 2, 8, 5, 2, 7, 1, 2], 1) == [8]  # two tokens weigh more than the last one
    assert lookup([1, 2, 3], 4) == [] and lookup([1], 4) == []


def test_an_alignment_finds_its_way_back():
    path = [1, 2, 3, 4, 5, 6]
    assert Alignment(path).draft([], 3) == [1, 2, 3]
    said = []
    alignment = Alignment(path)
    for token, expected in [(1, [2, 3]), (9, [3, 4]), (3, [4, 5]), (5, [6]), (6, [])]:
        said.append(token)
        assert alignment.draft(said, 2) == expected
    assert Alignment([]).draft([4], 2) == []


@torch.no_grad()
def test_the_best_path_is_that_of_the_warm_up(tiny_model):
    """Against the CTC of the warm-up over the whole vocabulary, before its bias is trained."""
    from pam.model.ctc import TokenEmbeddingCTC

    lm = tiny_model.llm
    vocabulary = [token for token in range(len(lm.embeddings)) if token != lm.space]
    ctc = TokenEmbeddingCTC(lm.embeddings, vocabulary, lm.space)
    audio = torch.randn(40, lm.width, generator=torch.Generator().manual_seed(0))
    audio[::3] = lm.embed(torch.tensor([lm.space])) * 2
    classes = ctc.log_probs(audio[None])[0].argmax(-1).tolist()
    joined = [c for place, c in enumerate(classes) if place == 0 or classes[place - 1] != c]
    expected = [vocabulary[c - 1] for c in joined if c != 0]
    assert CTCDrafter(merged_copy(lm)).best_path(audio) == expected
    assert 5 < len(expected) < 40


def test_every_drafter_is_in_the_registry():
    assert DRAFTERS.names() == ["ctc", "exit_layer", "prompt_lookup"]
    for name in DRAFTERS.names():
        assert issubclass(DRAFTERS.get(name), Drafter)
