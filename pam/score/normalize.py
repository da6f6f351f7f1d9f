"""Text normalisation before words are counted."""

import functools
import re
import unicodedata

import regex

# Characters that people type for an apostrophe: quotes, accents, primes, and similar letters.
# Double primes, double quotes, low quotes and angle quotes do not count.
APOSTROPHES = (
    "'\u2019\u2018\u201b\u275b\u275c\uff07"  # quotes
    "\u0060\u00b4\uff40\u1fef\u1ffd\u0384\u1fbd\u1fbf"  # accents, Greek breathings
    "\u2032\u2035\u02b9\u0374"  # primes
    "\u02bb\u02bc\u02bd\u02be\u02bf\u02c8\ua78b\ua78c\u055a\u05f3"  # modifier letters and others
)
_UNIFIED = str.maketrans(dict.fromkeys(APOSTROPHES, "'") | {"\u200b": " "})
# Soft hyphen, joiners, direction and variation marks, byte order mark … The zero-width space U+200B
# is not here: it separates words, as in UAX #29.
_INVISIBLE = regex.compile(r"[\p{Cf}\p{Default_Ignorable_Code_Point}--\u200b]", regex.VERSION1)

# "mm-hmm", "uh-huh" and "um-hum" are one word each, as in NIST's tables of equivalent spellings.
_YES = re.compile(r"\b(m+) (h+m+)\b|\b(u+h) (hu+h)\b|\b(u+[hm]) (hu+m)\b")


def basic(text: str) -> str:
    """Lower case, without punctuation and symbols except apostrophes, with single spaces.

    An apostrophe is kept only between two letters or digits. Elsewhere it looks like a quote, so
    "dogs'" counts as "dogs", "'cause" as "cause", and "rock 'n' roll" as "rock n roll". Marks of
    any script (accents, vowel signs) are kept. "mm-hmm" is one word.

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
    """Remove invisible characters, and replace all apostrophes by one character."""
    return _INVISIBLE.sub("", text).translate(_UNIFIED)


def _is_lone_accent(character: str) -> bool:
    """Whether NFKC would split it into a space and a mark, which would join the next letter."""
    return unicodedata.decomposition(character).startswith("<compat> 0020 ")


@functools.cache
def _whisper_normalizer():
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def whisper(text: str) -> str:
    """Whisper's English normalisation: it unifies contractions, numbers and spellings.

    It knows only one apostrophe and keeps invisible characters, so `unify` is applied first.
    """
    return " ".join(_whisper_normalizer()(unify(text)).split())


def one_line(text: str) -> str:
    """A caption on one line with single spaces, without METEOR's field separator "|||".

    A line break in a caption would shift all captions after it.
    """
    return " ".join(text.replace("|||", " ").split())


NORMALIZERS = {"basic": basic, "whisper": whisper}
