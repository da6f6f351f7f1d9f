"""Short pieces of words, for the CTC warm-up: an LLM's own tokens, but only those of early merges.

Byte-pair encoding joins pieces in the order of its merges, frequent ones first, and every piece on
the way to a long token is itself a token. Stopping after the first `merges` spells text with fewer
and more frequent tokens, all of which the LLM has an embedding for. In a few hours of speech most
whole words occur too seldom to learn how they sound; their pieces do not.
"""

import json

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pam.errors import UserError


def short_pieces(tokenizer: PreTrainedTokenizerBase, merges: int) -> PreTrainedTokenizerFast:
    """The tokenizer with its first `merges` merges alone. UserError if it has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = json.loads(backend.to_str()) if backend is not None else {"model": {"type": None}}
    model = parts["model"]
    if model["type"] != "BPE":
        raise UserError(
            f"warmup_merges: {merges}: the tokenizer of {tokenizer.name_or_path} is no byte-pair "
            "encoding and has no merges: set it to null"
        )
    model["merges"] = model["merges"][:merges]
    model["ignore_merges"] = False  # Llama 3 else takes a whole word where it is a token
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(parts)))
