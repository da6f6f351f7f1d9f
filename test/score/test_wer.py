import pytest

from pam.errors import UserError
from pam.score import wer
from pam.score.items import Item
from pam.score.normalize import basic, whisper


def items(*pairs):
    return [
        Item(id=f"u{i}", task="asr_clean", ref=ref, hyp=hyp) for i, (ref, hyp) in enumerate(pairs)
    ]


def test_counts_by_hand():
    result = wer.score(
        items(
            ("the cat sat on the mat", "the cat sit on mat"),  # 1 sub, 1 del, 4 hits
            ("hello world", "Hello, big world!"),  # 1 ins, 2 hits
            ("it's fine", "it’s fine"),  # 2 hits
        )
    )
    assert result["metric"] == "wer"
    assert (result["sub"], result["del"], result["ins"], result["hits"]) == (1, 1, 1, 8)
    assert (result["errors"], result["ref_words"], result["count"]) == (3, 10, 3)
    assert result["value"] == 30.0
    assert result["sentence_errors"] == 2
    assert result["ci95"][0] <= 30.0 <= result["ci95"][1]


def test_errors_are_pooled_not_averaged():
    result = wer.score(items(("a", "b"), ("a b c d e f g h i", "a b c d e f g h i")))
    assert result["value"] == 10.0


def test_empty_hypothesis_deletes_and_empty_reference_inserts():
    result = wer.score(items(("one two", ""), ("", "three"), ("...", "")))
    assert (result["del"], result["ins"], result["errors"]) == (2, 1, 3)
    assert result["value"] == 150.0


def test_no_reference_word_at_all():
    with pytest.raises(UserError, match="no word"):
        wer.score(items(("?", "hello")))


def test_whisper_normalisation_forgives_spelling_and_numbers():
    result = wer.score(items(("twenty one colours", "21 colors")))
    assert result["errors"] == 3
    assert result["whisper"]["errors"] == 0


def test_basic_normalisation():
    assert basic("  Well-known:\tit’s “HIS”. ") == "well known it's his"
    assert basic("don't — ' '") == "don't"
    assert basic("£5 & ½") == "5 1 2"
    assert basic("Zoë") == "zoë"


def test_whisper_normalisation():
    assert whisper("Mr. Smith isn't here") == "mister smith is not here"


def test_alignment_names_utterances_in_order():
    text = wer.alignment_text(items(("a b", "a c"), ("same", "same"), ("", "")))
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("===")] == [
        "=== u0 ===",
        "=== u1 ===",
        "=== u2 ===",
    ]
    assert "REF: a b" in lines
    assert "HYP: a c" in lines
