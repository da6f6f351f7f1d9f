"""Short pieces: the LLM's own tokens, by early merges alone."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pam.errors import UserError
from pam.llm.pieces import short_pieces
from pam.llm.template import token_ids

MERGES = [("t", "h"), ("th", "e"), ("e", "n"), ("the", "n")]
WORDS = ["th", "the", "en", "then"]


@pytest.fixture
def tokenizer():
    return byte_pairs()


def byte_pairs(**options):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, *WORDS])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES, **options))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize(
    "merges, pieces",
    [
        (0, ["t", "h", "e", "n"]),
        (1, ["th", "e", "n"]),
        (2, ["the", "n"]),
        (4, ["then"]),
        (99, ["then"]),
    ],
)
def test_pieces_of_the_first_merges(tokenizer, merges, pieces):
    short = short_pieces(tokenizer, merges)
    assert short.tokenize("then") == pieces
    # their ids are the tokenizer's own, so the LLM has an embedding for each
    assert tokenizer.convert_ids_to_tokens(token_ids(short, "then")) == pieces
    assert tokenizer.decode(token_ids(short, "Then, the hen’s")) == "Then, the hen’s"


def test_the_tokenizer_itself_is_left_as_it_was(tokenizer):
    short_pieces(tokenizer, 0)
    assert tokenizer.tokenize("then") == ["then"]


def test_whole_words_are_not_taken_where_the_tokenizer_prefers_them():
    tokenizer = byte_pairs(ignore_merges=True)
    assert tokenizer.tokenize("en") == ["en"]
    assert short_pieces(tokenizer, 1).tokenize("en") == ["e", "n"]


def test_a_tokenizer_without_merges():
    words = Tokenizer(models.WordLevel({"the": 0, "?": 1}, unk_token="?"))
    with pytest.raises(UserError, match="warmup_merges: 5: .* no byte-pair"):
        short_pieces(PreTrainedTokenizerFast(tokenizer_object=words), 5)


def test_the_warm_up_spells_answers(tiny_model):
    spell = tiny_model.llm.speller(None)
    assert spell("then") == tiny_model.llm.answer_ids("then")
    assert tiny_model.llm.speller(0)("then") == tiny_model.llm.answer_ids("then")
    assert tiny_model.llm.target_ids("then") == [*spell("then"), tiny_model.llm.eos]
