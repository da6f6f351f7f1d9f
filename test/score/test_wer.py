import pytest

from pam.errors import PamError
from pam.score import wer
from pam.score.items import Item
from pam.score.normalize import APOSTROPHES, basic, whisper


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
    with pytest.raises(PamError, match="u0 …: none of the 1 references holds a word") as caught:
        wer.score(items(("?", "hello")))
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # Format characters vanish
        ("co\u00adoperate", "cooperate"),
        ("ab\u2060cd \u200eef\u200f \ufeffgh", "abcd ef gh"),
        ("می\u200cخواهم", "میخواهم"),
        ("ශ්\u200dරී", "ශ්රී"),
        ("e\u034f\u0301", "é"),
        ("葛\U000e0100 ok\ufe0f", "葛 ok"),
        ("\u2066abc\u2069 d\u061ce \U000e0061f", "abc de f"),
        ("\u00ad \u200d", ""),
        ("ពាក្យ\u200bថ្មី", "ពាក្យ ថ្មី"),  # the zero-width space is a space
        ("a\tb\u00a0c\u3000d\u2028e\x00f", "a b c d e f"),
        # Apostrophes
        *((f"don{mark}t", "don't") for mark in APOSTROPHES),
        ("l´été ΑΛΛ᾽ ἐγώ", "l'été αλλ ἐγώ"),
        ("5′10″", "5'10"),
        ("a¨b ¸c ˝d", "a b c d"),  # accents that stand alone stick to no letter
        # Quotes
        ("'hello'", "hello"),
        ("he said, ‘it’s mine’", "he said it's mine"),
        ("``hello'' ‚du‘ ''no''", "hello du no"),
        ("''a''b", "a b"),
        ("the dogs' bowl, 'cause rock 'n' roll", "the dogs bowl cause rock n roll"),
        ("rock'n'roll o'clock y'all'd've", "rock'n'roll o'clock y'all'd've"),
        # Marks, digits and letters of all scripts are kept
        ("हिन्दी में", "हिन्दी में"),
        ("تَعَلَّمَ ١٢", "تَعَلَّمَ ١٢"),
        ("東京、ﾃｽﾄ１２。", "東京 テスト12"),
        ("한국어 — ไทย", "한국어 ไทย"),
        ("ﬁne Ａ´ｓ", "fine a's"),
        ("cafe\u0301", "café"),
        ("\u0301 ' -", ""),
        # Fillers
        ("Mm-hmm. Uh-huh! um-hum", "mmhmm uhhuh umhum"),
        ("mm hmm", "mmhmm"),
        ("uh uh hmm mm mm", "uh uh hmm mm mm"),
    ],
)
def test_basic_words(text, words):
    assert basic(text) == words
    assert basic(words) == words


def test_whisper_normalisation_sees_no_invisible_characters():
    assert whisper("co\u00adoperate don´t it’s a\u200bb") == "cooperate do not it is a b"


def test_fillers_only_are_scored_by_basic():
    """Whisper's normalisation drops them."""
    result = wer.score(items(("mm-hmm", "mm-hmm"), ("hmm", "yeah")))
    assert (result["value"], result["errors"], result["ref_words"]) == (50, 1, 2)
    assert result["whisper"] is None
    assert set(result["statistics"]) == {"wer"}


def test_an_utterance_that_whisper_empties_counts_its_insertions():
    result = wer.score(items(("hmm", "yeah"), ("it is", "it is")))["whisper"]
    assert (result["errors"], result["ref_words"], result["ins"]) == (1, 2, 1)
