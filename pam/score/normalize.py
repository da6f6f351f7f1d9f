"""How text is made comparable before words are counted."""

import functools
import unicodedata

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'"})


def basic(text: str) -> str:
    """Lower case, punctuation and symbols off except the apostrophe, spaces collapsed.

    >>> basic("Well-known:  it’s  “HIS”.")
    "well known it's his"
    """
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).lower()
    kept = "".join(" " if c != "'" and unicodedata.category(c)[0] in "PSCZ" else c for c in text)
    return " ".join(word for word in kept.split() if word.strip("'"))


@functools.cache
def _whisper_normalizer():
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def whisper(text: str) -> str:
    """Whisper's English normalisation: contractions, numbers and spellings are unified."""
    return " ".join(_whisper_normalizer()(text).split())


def one_line(text: str) -> str:
    """A caption with all white space collapsed, and without METEOR's field separator "|||".

    A line break in one caption would shift all captions after it.
    """
    return " ".join(text.replace("|||", " ").split())


NORMALIZERS = {"basic": basic, "whisper": whisper}
