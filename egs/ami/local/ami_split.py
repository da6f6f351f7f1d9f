"""Segments become utterances as in Kaldi's AMI recipe, so that counts and times agree with it.

A segment is cut at each full stop and question mark. What is longer than 30 words after that,
commas counted in, is cut at the comma nearest to its middle in time, again and again; without a
comma it stays long. Pieces meet: one ends, and the next begins, at the time of the mark between.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ami_utterances import clean

MAX_TOKENS = 30
SENTENCE_ENDS = (".", "?")
# Words of two syllables that the corpus writes with a hyphen; other hyphens part words.
HYPHENATED = re.compile(r"\b(?:mm hmm|uh huh)\b")


@dataclass(frozen=True)
class Token:
    """A word, a punctuation mark or something else (a noise); times in seconds, if it has them."""

    id: str
    kind: str
    text: str
    start: float | None
    end: float | None


@dataclass(frozen=True)
class Piece:
    start: float
    end: float
    tokens: Sequence[Token]
    times: Sequence[float]  # when each token begins


def pieces(tokens: Sequence[Token], start: float, end: float) -> Iterator[Piece]:
    """Cut a segment; there may be pieces without words, but none after the last word."""
    for sentence in _sentences(tokens, start, end):
        yield from _shorten(sentence)


def _sentences(tokens: Sequence[Token], start: float, end: float) -> Iterator[Piece]:
    spoken: list[Token] = []
    times: list[float] = []
    begin = now = start
    for token in tokens:
        now = now if token.start is None else token.start  # a mark without time: the word before it
        if token.kind == "mark" and token.text in SENTENCE_ENDS:
            yield Piece(begin, now, spoken, times)
            spoken, times, begin = [], [], now
        elif token.kind != "other":
            spoken.append(token)
            times.append(now)
        now = now if token.end is None else token.end
    if spoken:
        yield Piece(begin, end, spoken, times)


def _shorten(piece: Piece) -> Iterator[Piece]:
    commas = [
        place
        for place, (token, time) in enumerate(zip(piece.tokens, piece.times, strict=True))
        if token.kind == "mark" and token.text == "," and piece.start < time < piece.end
    ]
    if len(piece.tokens) <= MAX_TOKENS or not commas:
        yield piece
        return
    middle = (piece.start + piece.end) / 2
    cut = min(commas, key=lambda place: abs(piece.times[place] - middle))
    at, left, right = piece.times[cut], slice(cut), slice(cut + 1, None)
    yield from _shorten(Piece(piece.start, at, piece.tokens[left], piece.times[left]))
    yield from _shorten(Piece(at, piece.end, piece.tokens[right], piece.times[right]))


def text_of(tokens: Sequence[Token]) -> str:
    """Lower case; hyphens and commas inside words are spaces, letters (T_V_) are spelt "t. v."."""
    text = " ".join(token.text for token in tokens if token.kind == "word")
    text = clean(text.replace("-", " ").replace(",", " ").replace("_", ". "))
    return HYPHENATED.sub(lambda found: found[0].replace(" ", "-"), text)
