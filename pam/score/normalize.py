"""How text is made comparable before words are counted."""

import functools
import re
import unicodedata

import regex

# What is typed for an apostrophe: quotes, accents, primes, and letters that look like one. Double
# primes and quotes, low quotes and angle quotes are none.
APOSTROPHES = (
    "'\u2019\u2018\u201b\u275b\u275c\uff07"  # quotes
    "\u0060\u00b4\uff40\u1fef\u1ffd\u0384\u1fbd\u1fbf"  # accents, Greek breathings
    "\u2032\u2035\u02b9\u0374"  # primes
    "\u02bb\u02bc\u02bd\u02be\u02bf\u02c8\ua78b\ua78c\u055a\u05f3"  # modifier letters and others
)
_UNIFIED = str.maketrans(dict.fromkeys(APOSTROPHES, "'") | {"\u200b": " "})
# Soft hyphen, joiners, direction and variation marks, byte order mark … But the zero-width space
# U+200B separates words, as in UAX #29.
_INVISIBLE = regex.compile(r"[\p{Cf}\p{Default_Ignorable_Code_Point}--\u200b]", regex.VERSION1)

# One word each, as in NIST's tables of equal spellings: "mm-hmm", "uh-huh", "um-hum".
_YES = re.compile(r"\b(m+) (h+m+)\b|\b(u+h) (hu+h)\b|\b(u+[hm]) (hu+m)\b")


def basic(text: str) -> str:
    """Lower case, punctuation and symbols off except the apostrophe, spaces collapsed.

    An apostrophe belongs to a word between two letters or digits only: elsewhere it cannot be told
    from a quote, so "dogs'" counts as "dogs", "'cause" as "cause", "rock 'n' roll" as
    "rock n roll". Marks of any script (accents, vowel signs) are kept. "mm-hmm" is one word.

    >>> basic("Well-known:  it’s  ‘HIS’.")
    "well known it's his"
    """
    text = "".join(" " if _is_lone_accent(c) else c for c in unify(text))
    text = unicodedata.normalize("NFKC", text).lower()
    text = "".join(" " if c != "'" and unicodedata.category(c)[0] in "PSCZ" else c for c in text)
    words = (word.strip("'") for word in re.sub("''+", " ", text).split())
    text = " ".join(word for word in words if any(c.isalnum() for c in word))
    return _YES.sub(lambda match: match[0].replace(" ", ""), text)


def unify(text: str) -> str:
    """Characters that cannot be seen are left out; all apostrophes are one."""
    return _INVISIBLE.sub("", text).translate(_UNIFIED)


def _is_lone_accent(character: str) -> bool:
    """NFKC would make a space and a mark of it, which would stick to the next letter."""
    return unicodedata.decomposition(character).startswith("<compat> 0020 ")


@functools.cache
def _whisper_normalizer():
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def whisper(text: str) -> str:
    """Whisper's English normalisation: contractions, numbers and spellings are unified.

    It knows one apostrophe only and keeps characters that cannot be seen: `unify` comes first.
    """
    return " ".join(_whisper_normalizer()(unify(text)).split())


def one_line(text: str) -> str:
    """A caption with all white space collapsed, and without METEOR's field separator "|||".

    A line break in one caption would shift all captions after it.
    """
    return " ".join(text.replace("|||", " ").split())


NORMALIZERS = {"basic": basic, "whisper": whisper}
