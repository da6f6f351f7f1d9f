"""Answers about pieces become one answer."""

import pytest

from pam.decode.answer import Answer, Piece
from pam.decode.join import join_answers, join_transcripts, list_answers, transcribes


@pytest.mark.parametrize(
    ("left", "right", "joined"),
    [
        ("the boy went to", "went to the house", "the boy went to the house"),
        ("the boy went", "to the house", "the boy went to the house"),
        ("the boy went", "went to the house", "the boy went to the house"),
        ("", "the house", "the house"),
        ("the boy", "", "the boy"),
        ("", "", ""),
        # A word that a cut left incomplete is taken from the piece that has it whole.
        ("the boy we", "boy went to", "the boy went to"),
        ("the boy went", "oy went to", "the boy went to"),
        ("the boy went to", "ent to the house", "the boy went to the house"),
        # A wrong word at an edge, next to a longer run, is left out.
        ("the boy went two", "boy went to the house", "the boy went to the house"),
        ("the boy went to", "a boy went to the house", "the boy went to the house"),
        # One common word proves nothing if it would leave out others.
        ("he was in the", "house of the man", "he was in the house of the man"),
        # Case and punctuation at the cut come from the piece that knows what follows.
        ("It was the boy.", "The boy went.", "It was the boy went."),
        # A run is not searched beyond the overlap.
        (
            "one two three four five six seven eight nine",
            "one two three",
            "one two three four five six seven eight nine one two three",
        ),
    ],
)
def test_the_words_of_the_overlap_occur_once(left, right, joined):
    assert join_transcripts([left, right], 0.8) == joined


def test_many_pieces():
    words = [f"w{n}" for n in range(100)]
    texts = [" ".join(words[at : at + 12]) for at in range(0, 100, 10)]
    assert join_transcripts(texts, 1.0) == " ".join(words)


def test_other_answers_are_listed_once():
    assert list_answers(["A dog barks.", "", "two", "a dog barks", "Two", "three"]) == (
        "A dog barks.; two; three"
    )


def test_what_is_a_transcript():
    tasks = ["asr_clean", "snv", "ac"]
    assert transcribes("asr_noisy", tasks)
    assert not transcribes("ac", tasks) and not transcribes("snv", tasks)
    assert not transcribes("0", tasks) and not transcribes(None, tasks)
    assert transcribes(None, ["asr_clean", "asr_noisy"])


def test_the_answer_about_a_recording():
    times = [(0.0, 8.0), (7.0, 12.0)]
    answers = [
        Answer("the boy went", "asr_clean", {"asr_clean": 0.75, "ac": 0.25}, 0.5, 0.0),
        Answer("went home", "asr_clean", {"asr_clean": 0.25, "ac": 0.75}, 0.25, 0.5, True),
    ]
    joined = join_answers(times, answers, 1.0)
    pieces = (Piece(0.0, 8.0, "the boy went"), Piece(7.0, 12.0, "went home"))
    posteriors = {"asr_clean": 0.5, "ac": 0.5}
    assert joined == Answer("the boy went home", "asr_clean", posteriors, 0.25, 0.5, False, pieces)
    assert join_answers(times, answers, None).text == "the boy went; went home"
    bare = join_answers(times, [Answer("a", None, {}, skipped=True)] * 2, None)
    assert (bare.text, bare.expert, bare.posteriors, bare.skipped) == ("a", None, {}, True)
