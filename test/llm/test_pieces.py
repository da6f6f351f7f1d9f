"""Pieces of rare words: the LLM's own tokens, none of them rare."""

from collections import Counter

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pam.errors import UserError
from pam.llm.pieces import Pieces, joined_from
from pam.llm.template import token_ids

MERGES = [("t", "h"), ("th", "e"), ("e", "n"), ("the", "n"), ("th", "en")]
WORDS = ["th", "the", "en", "then"]


@pytest.fixture
def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, *WORDS])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def pieces(tokenizer, texts, min_count):
    return Pieces(tokenizer, [token_ids(tokenizer, text) for text in texts], min_count)


@pytest.mark.parametrize(
    "texts, expected",
    [
        (["then"] * 3, ["then"]),
        (["then"] * 2, ["t", "h", "e", "n"]),  # the, th: twice each, so they are rare too
        (["then"] * 2 + ["the"], ["the", "n"]),  # then's piece makes it frequent
        (["then"] * 2 + ["th"], ["th", "e", "n"]),
        (["the"] * 3, ["the", "n"]),  # unseen: as rare as can be
    ],
)
def test_rare_tokens_are_taken_apart_as_far_as_necessary(tokenizer, texts, expected):
    split = pieces(tokenizer, texts, 3)
    got = split(token_ids(tokenizer, "then"))
    assert tokenizer.convert_ids_to_tokens(got) == expected


def test_spelled_texts_hold_no_rare_token_and_say_the_same(tokenizer):
    texts = ["then the hen", "the tenth", "then, then", "when", "thé"]
    split = pieces(tokenizer, texts, 3)
    spelled = [split(token_ids(tokenizer, text)) for text in texts]
    assert [tokenizer.decode(ids) for ids in spelled] == texts
    counts = Counter(token for ids in spelled for token in ids)
    joined = joined_from(tokenizer)
    assert any(token in joined for token in counts)
    assert all(count >= 3 for token, count in counts.items() if token in joined)
    assert split.kept == set(counts)


def test_the_earliest_merge_says_what_a_token_consists_of(tokenizer):
    the_n = tuple(tokenizer.convert_tokens_to_ids(["the", "n"]))
    assert joined_from(tokenizer)[tokenizer.convert_tokens_to_ids("then")] == the_n


def test_a_tokenizer_without_merges():
    words = Tokenizer(models.WordLevel({"the": 0, "?": 1}, unk_token="?"))
    with pytest.raises(UserError, match="warmup_min_count: .* no byte-pair"):
        Pieces(PreTrainedTokenizerFast(tokenizer_object=words), [], 2)


def test_how_the_warm_up_spells_answers(tiny_model):
    llm = tiny_model.llm
    assert llm.speller(["then"], 1)("then") == llm.answer_ids("then")
    # a tokenizer of single bytes has nothing to take apart
    assert llm.speller(["then"], 5)("then") == llm.answer_ids("then")
    assert llm.target_ids("then") == [*llm.answer_ids("then"), llm.eos]
