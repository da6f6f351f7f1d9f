"""Accuracy of counting speakers; an answer that cannot be parsed is wrong, and counted."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pam.errors import UserError
from pam.score.items import Item, clusters_of
from pam.score.significance import proportion_ci95
from pam.score.utterances import Statistics

_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NUMBERS = {word: value for value, word in enumerate(_WORDS)} | {"single": 1, "couple": 2}
_NUMBER = rf"(?<![\w.])(?:\d+(?!\.?\d)|{'|'.join(_NUMBERS)})\b"
_HEADS = "speakers?|people|persons?|voices?|talkers?|individuals?|participants?"
# What ends a count: "speaker one and speaker two", "one of the speakers"
_LINK = r"(?:and|or)\b|of\s+the\b"
# "two different speakers", "a couple of people"
_COUNTED = re.compile(rf"({_NUMBER})(?=(?:\s+(?!{_LINK})\w+){{0,2}}?\s+(?:{_HEADS})\b)")
# "one man and two women": the numbers of parts are added, where every part has one
_PART = re.compile(
    rf"(an?|another|{_NUMBER})\s+(?:\w+\s+)?(?:m[ae]n|wom[ae]n|(?:fe)?males?|boys?|girls?)\b"
)
_HEDGE = re.compile(rf"{_NUMBER}(?:\s*[-–/]\s*|\s+(?:or|to)\s+(?:\w+\s+)?){_NUMBER}")
_NOBODY = re.compile(rf"\bnobody\b|\bno[ -]one\b|\bno\s+(?:\w+\s+)?(?:{_HEADS})\b")
# "B", "(b)", "**B**", "B. two", "The correct answer is option B."; not "a couple", not "A or B"
_LEAD = (
    r"(?:(?:i\s+(?:choose|pick|select)|it\s+is|it's)\s+)?"
    r"(?:(?:the\s+)?(?:(?:most\s+)?(?:correct|suitable|best)\s+)?(?:answer|option|choice)"
    r"\s*(?:is|:)?\s*)?(?:option\s+|choice\s+)?"
)
_LETTER = re.compile(rf"^\W*{_LEAD}\W*([A-H])\W*?(?:[.):,*]|\s*$)", re.IGNORECASE)
_TWO_LETTERS = re.compile(r"^\W*[A-H]\W*(?:(?:and|or)\W+)?\b[A-H]\W*(?:[.):,]|$)", re.IGNORECASE)


def parse_number(answer: str) -> int | None:
    """How many speakers an answer says there are; None where it does not say one number.

    >>> [parse_number(text) for text in ("2", "There are two people.", "two or three", "hello")]
    [2, 2, None, None]
    """
    text = answer.lower()
    if _HEDGE.search(text):
        return None
    found = {_value(match) for match in _COUNTED.findall(text)}
    if _NOBODY.search(text):
        found |= {0}
    if not found:
        found = _sum_of_parts(text) or {_value(match) for match in re.findall(_NUMBER, text)}
    return found.pop() if len(found) == 1 else None


def parse_answer(answer: str, choices: Mapping[str, str] | None = None) -> int | None:
    """As `parse_number`; an answer "B" means what the item's own `choices` say of B.

    >>> parse_answer("B. 3", {"A": "2", "B": "3"}), parse_answer("C", {"A": "2", "B": "3"})
    (3, None)
    """
    letter = _LETTER.match(answer) if choices and not _TWO_LETTERS.match(answer) else None
    if letter:
        return parse_number(choices.get(letter[1].upper(), ""))
    return parse_number(answer)


def score(items: Sequence[Item], seed: int = 0) -> dict[str, Any]:
    """Accuracy in percent, `parse_failures`, and the confusion as {reference: {answer: count}}."""
    truth = [_truth(item) for item in items]
    answers = [parse_answer(item.hyp, item.choices) for item in items]
    hits = [answer == ref for answer, ref in zip(answers, truth, strict=True)]
    most, most_count = Counter(truth).most_common(1)[0]
    return {
        "metric": "accuracy",
        "value": round(100 * sum(hits) / len(items), 4),
        "count": len(items),
        "errors": len(items) - sum(hits),
        "ci95": proportion_ci95(hits, clusters=clusters_of(items), seed=seed),
        "statistics": {"accuracy": Statistics([int(hit) for hit in hits], scale=100.0)},
        "correct": sum(hits),
        "parse_failures": sum(answer is None for answer in answers),
        "confusion": _confusion(truth, answers),
        "baseline": {
            "what": f"always answering {most}, the most frequent answer of this set",
            "value": round(100 * most_count / len(items), 4),
        },
    }


def _value(text: str) -> int:
    return _NUMBERS[text] if text in _NUMBERS else int(text)


def _sum_of_parts(text: str) -> set[int | None]:
    parts = _PART.findall(text)
    if not parts:
        return set()
    return {None if any(p[0] == "a" for p in parts) else sum(map(_value, parts))}


def _truth(item: Item) -> int:
    number = parse_answer(item.ref, item.choices)
    if number is None:
        raise UserError(
            f"{item.id}: the reference {item.ref!r} does not say a number of speakers: mend `text`"
        )
    return number


def _confusion(truth: list[int], answers: list[int | None]) -> dict[str, dict[str, int]]:
    table: dict[str, Counter] = {str(ref): Counter() for ref in sorted(set(truth))}
    for ref, answer in zip(truth, answers, strict=True):
        table[str(ref)]["unparsed" if answer is None else str(answer)] += 1
    return {ref: dict(sorted(counts.items())) for ref, counts in table.items()}
