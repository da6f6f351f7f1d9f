"""Classes of answer tokens: by their place in a word, and by their frequency in training."""

from collections import Counter
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

KINDS = ("word-initial", "continuation", "punctuation", "end")
POSITIONS = ("1", "2", "3", "4 and later")  # in the word
FREQUENCIES = ("0", "1 to 9", "10 to 99", "100 to 999", "1000 and more")  # in the training answers
BEFORE_A_WORD = "Ġ▁Ċĉč \n\t"  # a space or line break, of byte-level BPE and SentencePiece


def kinds_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], end: int) -> list[str]:
    """The kind of each token of an answer. A word goes on until a token that begins with a space.

    A token without a letter or digit is punctuation; the next token with one is word-initial.
    """
    kinds, inside = [], False
    for token, piece in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True):
        if token == end:
            kinds.append("end")
        elif not any(map(str.isalnum, piece.strip(BEFORE_A_WORD))):
            kinds.append("punctuation")
        else:
            starts = not inside or piece[0] in BEFORE_A_WORD
            kinds.append("word-initial" if starts else "continuation")
        inside = kinds[-1] in ("word-initial", "continuation")
    return kinds


def positions_of(kinds: Sequence[str]) -> list[str | None]:
    """The position of each token in its word; None for tokens outside words."""
    positions, place = [], 0
    for kind in kinds:
        place = place + 1 if kind == "continuation" else 0
        inside = kind in ("word-initial", "continuation")
        positions.append(POSITIONS[min(place, len(POSITIONS) - 1)] if inside else None)
    return positions


def frequencies_of(ids: Sequence[int], counts: Counter[int]) -> list[str]:
    """The range of each token's count in the training answers."""
    return [FREQUENCIES[min(len(str(counts[i])), 4) if counts[i] else 0] for i in ids]
