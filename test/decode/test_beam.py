"""Beam search and sampling, against transformers."""

import pytest
import torch
from transformers import DynamicCache

from pam.decode.beam import beam_search
from pam.decode.engine import Engine
from pam.decode.row import Row
from pam.decode.sample import Sampling
from pam.decode.search import Greedy, search
from pam.llm.merged import merged_copy
from pam.llm.prompts import PromptStates

TEXTS = [[3, 5], [9, 8, 7, 6, 50], [100, 200, 30], [77], [4, 4, 4, 4], [60, 61]]


@pytest.fixture
def lm(tiny_model):
    return merged_copy(tiny_model.llm.double())


@torch.no_grad()
def rows_of(lm, limit=12, texts=TEXTS):
    for number, ids in enumerate(texts):
        cache, embeds = DynamicCache(), lm.embed(torch.tensor([ids]))
        out = lm.backbone(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        mask = torch.ones(1, len(ids), dtype=torch.bool)
        keys, values = [x.keys for x in cache.layers], [x.values for x in cache.layers]
        past = PromptStates(out.last_hidden_state[:, -1], keys, values, mask)
        yield Row(number, past, limit, name=str(number))


@torch.no_grad()
def generated(lm, ids, limit, **options) -> list[int]:
    """The answer of transformers' own search."""
    out = lm.llm.generate(
        inputs_embeds=lm.embed(torch.tensor([ids])),
        attention_mask=torch.ones(1, len(ids)),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=lm.eos,
        pad_token_id=lm.eos,
        **options,
    )[0].tolist()
    return out[: out.index(lm.eos)] if lm.eos in out else out


@pytest.mark.parametrize("limit", [1, 3, 12])
@pytest.mark.parametrize("beams", [2, 4, 7])
def test_beam_search_is_that_of_transformers(lm, beams, limit):
    expected = {n: generated(lm, ids, limit, num_beams=beams) for n, ids in enumerate(TEXTS)}
    for rows in (32, beams):  # several utterances at once, and one
        found = list(beam_search(Engine(lm, 64, rows), rows_of(lm, limit), beams))
        assert {row.key: row.said for row in found} == expected


@pytest.mark.parametrize("size", [1, 2])
def test_no_sequence_comes_twice_as_in_transformers(lm, size):
    options = {"num_beams": 4, "no_repeat_ngram_size": size}
    expected = {n: generated(lm, ids, 12, **options) for n, ids in enumerate(TEXTS)}
    found = list(beam_search(Engine(lm, 64, no_repeat=size), rows_of(lm), 4))
    assert {row.key: row.said for row in found} == expected
    plain = list(beam_search(Engine(lm, 64), rows_of(lm), 4))
    assert {row.key: row.said for row in plain} != expected, "the test forbids nothing"


@pytest.mark.parametrize("strategy", [Sampling(1e-3, 1.0, 0), Sampling(5.0, 0.3, 0)])
def test_draws_repeat_no_sequence(lm, strategy):
    for row in search(Engine(lm, 64, no_repeat=1), rows_of(lm, 40), strategy):
        assert len(set(row.said)) == len(row.said) > 0


def test_beams_find_more_probable_answers_than_greedy_search(lm):
    greedy = {row.key: row for row in search(Engine(lm, 64), rows_of(lm), Greedy())}
    beam = {row.key: row for row in beam_search(Engine(lm, 64), rows_of(lm), 7)}
    assert {key: row.said for key, row in beam.items()} != {k: r.said for k, r in greedy.items()}
    assert sum(r.logprob for r in beam.values()) > sum(r.logprob for r in greedy.values())


def test_the_answers_of_a_row_do_not_depend_on_the_others(lm):
    together = {row.key: row.said for row in beam_search(Engine(lm, 64), rows_of(lm), 3)}
    for number, ids in enumerate(TEXTS):
        (row,) = beam_search(Engine(lm, 64), rows_of(lm, texts=[ids]), 3)
        assert row.said == together[number]


def test_draws_follow_from_the_seed_and_the_name(lm):
    def said(seed, rows=32, texts=TEXTS):
        engine = Engine(lm, 64, rows)
        found = search(engine, rows_of(lm, texts=texts), Sampling(1.0, 0.9, seed))
        return {row.key: row.said for row in found}

    first = said(0)
    assert said(0, rows=2) == first and said(0, texts=TEXTS[:1]) == {0: first[0]}
    assert said(1) != first


def test_a_low_temperature_is_greedy_search(lm):
    greedy = {row.key: row.said for row in search(Engine(lm, 64), rows_of(lm), Greedy())}
    for sampling in (Sampling(1e-4, 1.0, 0), Sampling(1.0, 1e-9, 0)):
        assert {r.key: r.said for r in search(Engine(lm, 64), rows_of(lm), sampling)} == greedy


def test_draws_have_the_frequencies_of_the_model(lm):
    """First tokens of 2,000 rows: a nucleus of 0.5 holds the most probable tokens only."""
    (row,) = rows_of(lm, texts=TEXTS[:1])
    probabilities = lm.logits(row.past.pooled)[0].softmax(-1)
    order = probabilities.argsort(descending=True)
    above = probabilities[order].cumsum(0) - probabilities[order]
    nucleus = set(order[above < 0.5].tolist())
    rows = (Row(n, row.past, 1, name=str(n)) for n in range(2000))
    found = [
        one.said[0] if one.said else lm.eos
        for one in search(Engine(lm, 64), rows, Sampling(1.0, 0.5, 0))
    ]
    assert set(found) <= nucleus and len(nucleus) > 3
    best = int(order[0])
    share = float(probabilities[best] / probabilities[list(nucleus)].sum())
    spread = (share * (1 - share) / 2000) ** 0.5
    assert abs(found.count(best) / 2000 - share) < 5 * spread
