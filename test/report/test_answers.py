"""The answers of the page: aligned as the WER counts them, judged as their task is scored."""

import functools
from collections import Counter

import pytest
from handmade import ANSWERS, HOSTILE, answer, write_set
from hypothesis import given, settings
from hypothesis import strategies as st

from pam.report.answers import decoded_sets, entries, is_misrouted, word_diffs
from pam.score.items import Item
from pam.score.normalize import basic
from pam.score.score_set import metric_of
from pam.score.wer import utterance_counts

WORDS = st.lists(st.sampled_from(["a", "b", "c", "don't", "שלום"]), max_size=7).map(" ".join)


def item(task="asr_clean", **others):
    values = {"id": "u", "task": task, "hyp": "", "ref": ""} | others
    return Item(**values)


def distance(reference, hypothesis):
    """Word errors, by the definition."""

    @functools.cache
    def errors(r, h):
        if r == 0 or h == 0:
            return r + h
        same = reference[r - 1] == hypothesis[h - 1]
        return min(errors(r - 1, h) + 1, errors(r, h - 1) + 1, errors(r - 1, h - 1) + (not same))

    return errors(len(reference), len(hypothesis))


@settings(deadline=None, max_examples=100)
@given(WORDS, WORDS)
def test_the_diff_is_the_alignment_that_is_counted(reference, hypothesis):
    one = item(ref=reference, hyp=hypothesis)
    (diff,) = word_diffs([one])
    counts = Counter()
    for operation, above, below in diff:
        above, below = above.split(), below.split()
        counts[operation] += max(len(above), len(below))
        assert bool(above) == (operation != "I") and bool(below) == (operation != "D")
        assert operation not in "=S" or len(above) == len(below)
        assert operation != "=" or above == below
    assert " ".join(above for _, above, _ in diff if above) == basic(reference)
    assert " ".join(below for *_, below in diff if below) == basic(hypothesis)
    (wanted,) = utterance_counts([one], basic)
    names = {"=": "hits", "S": "sub", "D": "del", "I": "ins"}
    assert {names[mark]: count for mark, count in counts.items()} == dict(wanted)
    errors = counts["S"] + counts["D"] + counts["I"]
    assert errors == distance(basic(reference).split(), basic(hypothesis).split())


def test_a_known_diff():
    (diff,) = word_diffs([item(ref="Well, we can sit here, Joe.", hyp="we can SET here joe now")])
    assert diff == [
        ("D", "well", ""),
        ("=", "we can", "we can"),
        ("S", "sit", "set"),
        ("=", "here joe", "here joe"),
        ("I", "", "now"),
    ]


@pytest.mark.parametrize(
    ("task", "ref", "hyp", "wrong"),
    [
        ("asr_clean", "Well, yes.", "well yes", False),
        ("asr_noisy", "well yes", "well", True),
        ("snv", "two", "There are 2 people.", False),
        ("snv", "two", "three", True),
        ("snv", "two", "people", True),
        ("ac", "a dog barks", "A cat meows.", False),
        ("ac", "a dog barks", "a dog", True),
    ],
)
def test_wrong_is_what_the_task_takes_for_wrong(task, ref, hyp, wrong):
    one = item(task, ref=ref, hyp=hyp, refs=(ref, "a cat meows"))
    assert entries([one])[0]["wrong"] is metric_of(task).is_wrong(one) is wrong


def test_letters_mean_the_choices_of_their_item():
    one = item("snv", ref="B", hyp="three", choices={"A": "2", "B": "3"})
    other = item("snv", ref="B", hyp="A", choices={"A": "2", "B": "3"})
    assert [entry["wrong"] for entry in entries([one, other])] == [False, True]


def test_misrouted_needs_experts_with_tasks():
    found = [is_misrouted(item(expert=expert)) for expert in ("asr_clean", "ac", "expert 1", None)]
    assert found == [False, True, False, False]


def test_no_answer_is_too_odd():
    items = [item(id=str(n), ref=text, hyp=text) for n, text in enumerate(HOSTILE)]
    assert [entry["hyp"] for entry in entries(items)] == HOSTILE
    assert not any(entry["wrong"] for entry in entries(items))
    assert entries([]) == []
    assert entries([item(posterior=float("nan"))])[0]["posterior"] is None


def test_the_main_decoding_is_first_and_many_answers_are_thinned(tmp_path):
    exp = tmp_path / "exp" / "x"
    write_set(exp, "b", ANSWERS)
    write_set(exp, "c", ANSWERS[:1])
    (exp / "another").mkdir()
    (exp / "greedy_unseen" / "b").rename(exp / "another" / "b")
    write_set(exp, "a", [answer(number) for number in range(10)])
    shown = [(one.tag, one.name, len(one.items), one.total) for one in decoded_sets([exp], 17)]
    assert shown == [
        ("greedy_unseen", "a", 3, 10),
        ("greedy_unseen", "c", 1, 1),
        ("another", "b", 13, 40),
    ]
    first = decoded_sets([exp], 17)[0]
    assert [one.id for one in first.items] == ["utt01", "utt05", "utt08"]
    assert sum(len(one.items) for one in decoded_sets([exp])) == 51
