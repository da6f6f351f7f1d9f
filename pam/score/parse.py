"""Parse the number of speakers in an answer: a word, a figure, or the letter of a choice."""

import re
import unicodedata
from collections.abc import Mapping

from pam.score.normalize import unify

_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    *("nineteen", "twenty"),
)
_NUMBERS = {word: value for value, word in enumerate(_WORDS)} | {"single": 1, "couple": 2}
_NUMBER = rf"(?<![\w.])(?:\d+(?!\.?\d)|{'|'.join(_NUMBERS)})\b"
_HEADS = "speakers?|people|persons?|voices?|talkers?|individuals?|participants?"
_GENDERS = "m[ae]n|wom[ae]n|(?:fe)?males?|boys?|girls?"
# What ends a count: "speaker one and speaker two", "one of the speakers", "one male speaker"
_LINK = rf"(?:and|or|{_GENDERS})\b|of\s+the\b"
# "two different speakers", "a couple of people"
_COUNTED = re.compile(rf"({_NUMBER})(?=(?:\s+(?!{_LINK})\w+){{0,2}}?\s+(?:{_HEADS})\b)")
# "one man and two women": the numbers of parts are added, where every part has one
_PART = re.compile(rf"(an?|another|{_NUMBER})\s+(?:\w+\s+)?(?:{_GENDERS})\b")
_NOBODY = re.compile(
    rf"\bnobody\b|\bno[ -]one\b(?!\s+else)|\bnot\s+a\s+single\s+(?:{_HEADS})\b"
    rf"|\bno\s+(?!other|more|additional|further|{_NUMBER})(?:\w+\s+)?(?:{_HEADS})\b"
)

_AT_LEAST = r"at\s+(?:the\s+)?(?:very\s+)?(?:least|most|minimum|maximum)|(?:min|max)(?:imum)?\b\.?"
_MORE = "more|fewer|less|greater|higher|lower|larger|smaller"
# Numbers that are not counts. ("about three" and "probably three" are counts.)
_NO_COUNT = [
    re.compile(pattern)
    for pattern in (
        r"\b(?:no|without(?:\s+a)?)\s+(?:doubt|question)\b",  # not a negation of the number
        # Several: "two or three", "1, 2 or 3", "1-2", "between two and four"
        rf"(?:{_NUMBER},\s*)*{_NUMBER}(?:\s*[-–—/]\s*|\s+(?:or|to)\s+(?:\w+\s+)?){_NUMBER}",
        rf"\bbetween\s+{_NUMBER}\s+and\s+{_NUMBER}",
        # A bound: "more than two", "at least 3", "> 2", "nearly three"; "two or more", "3+"
        rf"\b(?:(?:{_MORE}|other|rather)\s+than(?:\s+or\s+equal\s+to)?|{_AT_LEAST}|over|under|above|below|beyond"
        r"|exceed(?:s|ing)?|up\s+to|as\s+(?:many|few)\s+as|upwards?\s+of|instead\s+of"
        r"|(?:minimum|maximum|excess)\s+of|nearly|almost|hardly|barely|scarcely|close\s+to"
        rf"|(?:different|far)\s+from|anything\s+but)\s+(?:the\s+|an?\s+|about\s+)?{_NUMBER}",
        rf"[<>≤≥]=?\s*{_NUMBER}",
        rf"{_NUMBER}\s*\+",
        rf"{_NUMBER}(?:\s+\w+){{0,2}}?,?\s+(?:(?:or|and)\s+(?:{_MORE}|above|over|up)"
        rf"|if\s+not\s+(?:{_MORE})|{_AT_LEAST}|plus)\b",
        rf"\b(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred)[\s-]+{_NUMBER}",
        rf"{_NUMBER}\s+(?:and\s+a\s+half|thirds?|halves|dozens?|hundreds?|thousands?)\b",
        # A name or a measure: "speaker 2", "for 5 seconds", "one another"
        rf"\b(?:speaker|person|voice|talker|option|choice)\s+(?:no\.?\s+|number\s+)?{_NUMBER}",
        rf"{_NUMBER}[\s-]*(?:%|(?:percent|seconds?|secs?|minutes?|mins?|hours?|years?|times?|words?"
        r"|sentences?|k?hz|m?s)\b)",
        r"\bone\s+another\b|\beach\s+one\b|\bone\s+by\s+one\b",
        # A negation, up to the end of the clause: "not two", "I can't hear two people"
        rf"\b(?:not|no(?![ -]one\b)|never|neither|nor|cannot|without|\w+n't)\b"
        rf"(?:(?!\bbut\b)[^.,;:!?\n])*?{_NUMBER}",
        rf"{_NUMBER}\s+is(?:n't|\s+not|\s+wrong|\s+incorrect)\b",
    )
]

# <answer>B</answer>, \boxed{B}
_MARKED = re.compile(
    r"<answer>\s*(.*?)\s*(?:</answer>|$)|\\boxed\{([^{}]*)\}",
    re.IGNORECASE | re.DOTALL,
)
# The final statement of an answer: "Final answer: B", {"answer": "B"}
_FINAL = re.compile(
    r"""["'](?:final[ _]?)?answer["']\s*:\s*["']?(?P<json>[^"'},\n]*)"""
    r"|(?:\bi(?:'d|'ll|\s+would|\s+will)?\s+(?:choose|pick|select|go\s+with)\b"
    r"|(?<!wrong )(?<!incorrect )\banswer(?:\s+(?:is|(?:would|must|should)\s+be)\b|\s*[:=→])+)"
    r"\s*(?P<clause>[^\n]*?)(?=[.!?;](?:\s|$)|\n|$)",
    re.IGNORECASE,
)
_SURELY = r"probably|definitely|certainly|clearly|likely|maybe|perhaps"
_LEAD = (
    r"(?:(?:i(?:'d|'ll|'m|\s+would|\s+will)?\s+)?"
    r"(?:choose|pick|select|go(?:ing)?\s+with|say|think|believe|guess)"
    r"|(?:it|that)(?:\s+is|'s)"
    r"|(?:the\s+)?(?:(?:most\s+)?(?:correct|right|suitable|best)\s+)?(?:answer|ans|option|choice)"
    rf"(?:\s+is)?|{_SURELY})"
)
_IS_RIGHT = (
    r"(?:is\s+(?:(?:the|my)\s+)?(?:correct|right|best|most\s+suitable|answer|choice)"
    r"|fits|matches)\b"
)
# "B", "(b)", "B. two", "C: 3", "option C", "C because …"; not "a couple", "a (low) voice", "e.g."
_AT_START = re.compile(
    rf"^\W*(?:{_LEAD}\W+){{0,4}}([A-H])(?!\b[^.;\n]*\bis\s+(?:incorrect|wrong|not)\b)(?:\W*$|\W*?[.):;,\]](?![a-z])|\s+[-–—]|(?<!a)\s+\("
    rf"|\s+(?:(?:because|since|as|based|given)\b|{_IS_RIGHT}))",
    re.IGNORECASE,
)
# "… (C)", "… so it must be C.", "… option c", "C is correct", "…: C", and a last line "C"
_AT_END = re.compile(
    r"\(([A-H])\)\W*$|[:=→]\W*(?-i:([A-H]))\W*$|(?:^|\n)\W*([A-H])\W*$|\b(?:option|choice|answer|letter)\W+([A-H])\W*$"
    rf"|\b(?:{_LEAD}|is|be|so|thus|therefore|hence|but)\W+(?-i:([A-H]))\W*$"
    rf"|\b(?-i:([A-H]))(?:\)[^.;\n]*)?\s+{_IS_RIGHT}[^.!?\n]*\W*$",
    re.IGNORECASE,
)
_TWO_LETTERS = re.compile(
    rf"(?:^|\b(?:either|both)|{_LEAD})\W*\b([A-H])\W*(?:(?:and|or)\W+)?\b(?!\1)[A-H]\W*(?:[.):,]|$)",
    re.IGNORECASE,
)
_LISTED = re.compile(r"\b([A-H])[.):]")


def parse_number(answer: str) -> int | None:
    """The number of speakers in an answer; None if it does not give one number.

    Bounds, ranges and negated numbers do not count.

    >>> [parse_number(text) for text in ("2", "There are two people.", "two or three", "hello")]
    [2, 2, None, None]
    """
    text = _plain(answer).lower()
    nobody = _NOBODY.search(text)
    for pattern in _NO_COUNT:
        text = pattern.sub(" … ", text)
    found = {_value(match) for match in _COUNTED.findall(text)}
    if nobody:
        found |= {0}
    if not found:
        found = _sum_of_parts(text) or {_value(match) for match in re.findall(_NUMBER, text)}
    return found.pop() if len(found) == 1 else None


def parse_answer(answer: str, choices: Mapping[str, str] | None = None) -> int | None:
    """As `parse_number`; the answer "B" stands for choice B of the item's `choices`.

    The last explicit statement ("Final answer: B") takes precedence over all other text.

    >>> parse_answer("B. 3", {"A": "2", "B": "3"}), parse_answer("C", {"A": "2", "B": "3"})
    (3, None)
    """
    text = _plain(answer)
    statements = [match[match.lastgroup] for match in _FINAL.finditer(text)]
    for statement in (*reversed(statements), text):
        letter = _letter(statement, choices) if choices else None
        if letter:
            return parse_number(choices.get(letter, ""))
        number = parse_number(statement)
        if number is not None:
            return number
    return None


def _plain(answer: str) -> str:
    """Drop the text before </think>, full-width forms and Markdown; spell out marked answers."""
    text = unicodedata.normalize("NFKC", unify(answer)).rpartition("</think>")[2]
    text = re.sub(r"[*_`$#]+", "", text).strip()
    text = re.sub(r"\\(?:text|math)\w*\{([^{}]*)\}", r"\1", text)
    text = _MARKED.sub(lambda match: f"\nanswer: {match[1] or match[2] or ''}\n", text)
    return re.sub(r"</?[a-zA-Z]\w*>", "", text)


def _letter(text: str, choices: Mapping[str, str]) -> str | None:
    """The single choice at the start or end of a text, as a capital letter."""
    if _TWO_LETTERS.search(text):
        return None
    repeated = len(set(_LISTED.findall(text))) >= min(3, len(choices))  # repeats the question
    patterns = [_AT_END] if repeated else [_AT_START, _AT_END]
    for pattern in patterns:
        if match := pattern.search(text):
            return next(group for group in match.groups() if group).upper()
    return None


def _value(text: str) -> int:
    return _NUMBERS[text] if text in _NUMBERS else int(text)


def _sum_of_parts(text: str) -> set[int | None]:
    parts = _PART.findall(text)
    if not parts:
        return set()
    return {None if any(p[0] == "a" for p in parts) else sum(map(_value, parts))}
