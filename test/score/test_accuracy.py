import pytest

from pam.errors import PamError
from pam.score import accuracy
from pam.score.items import Item
from pam.score.parse import parse_answer, parse_number

CHOICES = {"A": "one", "B": "two speakers", "C": "4", "D": "three"}


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("2", 2),
        ("2.", 2),
        ("Two", 2),
        ("two speakers", 2),
        ("There are 2 people.", 2),
        ("There is only one speaker in the recording.", 1),
        ("I hear three different voices", 3),
        ("a couple of people", 2),
        ("a single speaker", 1),
        ("10 speakers", 10),
        ("There are 2 people: one man and one woman", 2),
        ("one man and two women", 3),
        ("2 speakers for 5 seconds", 2),
        ("no one is speaking", 0),
        ("no speakers", 0),
        ("", None),
        ("hello", None),
        ("two or three", None),
        ("1-2 speakers", None),
        ("1 to 3 people", None),
        ("2.5", None),
        ("speaker 1 and speaker 2", None),
        ("one of the speakers", 1),
        ("a man and one woman", None),
        ("someone often weighs tonnes", None),
        ("B", None),
    ],
)
def test_parse_number(answer, number):
    assert parse_number(answer) == number


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("B", 2),
        ("(b)", 2),
        ("C.", 4),
        ("The answer is D", 3),
        ("A. one", 1),
        ("B) two speakers", 2),
        ("Answer: C", 4),
        ("four speakers", 4),
        ("a couple of speakers", 2),
        ("E", None),
        ("Because", None),
        ("**B**", 2),
        ("The correct answer is option C.", 4),
        ("I choose B", 2),
        ("A or B", None),
        ("A, B", None),
        ("D. A group of three", 3),
    ],
)
def test_letters_mean_the_choices_of_the_item(answer, number):
    assert parse_answer(answer, CHOICES) == number


def test_letters_without_choices_say_nothing():
    assert parse_answer("B") is None
    assert parse_answer("D", {"A": "1", "B": "2"}) is None


def snv(ref, hyp, choices=None):
    return Item(id=f"{ref}-{hyp}", task="snv", ref=ref, hyp=hyp, choices=choices)


def test_each_item_has_its_own_choices():
    """The same letter is right for one item and wrong for the other, as a reference too."""
    other = {"A": "2", "B": "1"}
    result = accuracy.score(
        [snv("B", "B", CHOICES), snv("B", "1", other), snv("B", "2", other), snv("B", "C", other)]
    )
    assert (result["correct"], result["parse_failures"]) == (2, 1)
    assert result["confusion"] == {"1": {"1": 1, "2": 1, "unparsed": 1}, "2": {"2": 1}}


def test_unparsable_is_wrong_and_counted():
    result = accuracy.score(
        [
            snv("two", "2"),
            snv("two", "three people"),
            snv("one", "who knows"),
            snv("one", "B", CHOICES),
        ]
    )
    assert result["value"] == 25.0
    assert (result["correct"], result["errors"], result["count"]) == (1, 3, 4)
    assert result["parse_failures"] == 1
    assert result["confusion"] == {"1": {"2": 1, "unparsed": 1}, "2": {"2": 1, "3": 1}}


def test_baseline_is_the_share_of_the_most_frequent_answer():
    result = accuracy.score([snv("two", "2"), snv("2", "1"), snv("one", "1")])
    assert result["baseline"]["value"] == pytest.approx(66.6667)
    assert "2" in result["baseline"]["what"]


def test_the_answer_that_the_model_gives_most_often_is_shown():
    result = accuracy.score([snv("two", "Two."), snv("2", "two"), snv("one", "one")])
    assert result["most_given"] == {"answer": "two", "count": 2}
    remarks = accuracy.Accuracy().remarks(result)
    assert "67 % of the answers are “two”" in remarks
    assert accuracy.Accuracy().remarks({"value": 1.0}) == []  # of an earlier version


def test_a_reference_without_a_number_is_bad_data():
    with pytest.raises(PamError, match="is not a number"):
        accuracy.score([snv("hello", "2")])
