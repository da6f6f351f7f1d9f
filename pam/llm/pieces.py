"""Pieces of rare words, for the CTC warm-up: an LLM's own tokens, but none that is rare in a text.

Most tokens that occur in a few hours of speech occur there once or twice, too seldom to learn how
they sound. Byte-pair encoding joined each of them from two shorter tokens, those from shorter ones
again, and the LLM has an embedding for all of these. Here the joining of rare tokens is undone:
frequent words stay tokens, rare ones are spelled as far as necessary.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerBase

from pam.errors import UserError


class Pieces:
    """Takes tokens apart that occur in `texts` less than `min_count` times.

    Counts are of the result: pieces of rare tokens add to the tokens that are such pieces.

    Args:
        tokenizer: a byte-pair encoding; another is a UserError.
        texts: the tokens of each training text.
        min_count: tokens that were joined from others are kept from this count on.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, texts: Iterable[Sequence[int]], min_count: int
    ):
        self.parts = joined_from(tokenizer)
        counts = Counter(token for ids in texts for token in ids)
        joined = list(self.parts)
        names = dict(zip(joined, tokenizer.convert_ids_to_tokens(joined), strict=True))
        # From the longest: whatever adds to a token's count is longer, and was taken apart before.
        for token in sorted(joined, key=lambda token: -len(names[token])):
            if counts[token] < min_count:
                for part in self.parts[token]:
                    counts[part] += counts[token]
                counts[token] = 0
        self.kept = {token for token, count in counts.items() if count > 0}

    def __call__(self, ids: Iterable[int]) -> list[int]:
        """The tokens `ids`, or their pieces."""
        return [piece for token in ids for piece in self.split(token)]

    def split(self, token: int) -> list[int]:
        if token in self.kept or token not in self.parts:
            return [token]
        return self(self.parts[token])


def joined_from(tokenizer: PreTrainedTokenizerBase) -> dict[int, tuple[int, int]]:
    """The two tokens that each joined token consists of, by the earliest of its merges."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = json.loads(backend.to_str())["model"] if backend is not None else {"type": None}
    if model["type"] != "BPE":
        raise UserError(
            f"warmup_min_count: the tokenizer of {tokenizer.name_or_path} is no byte-pair "
            "encoding, so its tokens cannot be taken apart: set it to 1"
        )
    ids, parts = model["vocab"], {}
    for first, second in model["merges"]:
        parts.setdefault(ids[first + second], (ids[first], ids[second]))
    return parts
