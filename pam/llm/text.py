"""Text as token ids. If a user's text spells a control token, it is encoded as plain letters.

Control tokens are the tokenizer's special tokens, and further tokens of its chat template, such as
`<think>`. Only templates may produce them. Otherwise "</s>" in a transcript would end the answer,
and a prompt could open a turn, without an error.
"""

import json
from collections.abc import Collection
from functools import cached_property

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from pam.errors import PamError


def markup_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Tokens of a template's text, in which control tokens keep their meaning."""
    return tokenizer(text, add_special_tokens=False).input_ids


class TextEncoder:
    """Encodes a user's text without control tokens.

    Args:
        control: ids of the control tokens; by default they are found in the tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, control: Collection[int] | None = None):
        self.tokenizer = tokenizer
        template = json.dumps(tokenizer.chat_template or "", ensure_ascii=False)
        self.control = {
            number: token.content
            for number, token in tokenizer.added_tokens_decoder.items()
            if (
                token.special or (token.content in template and not token.content.isspace())
                if control is None
                else number in control
            )
        }

    def __call__(self, text: str) -> list[int]:
        ids = markup_ids(self.tokenizer, text)
        return self.literal(text) if self.holds_control(ids, text) else ids

    def holds_control(self, ids: list[int], text: str) -> bool:
        """Whether `ids` hold a control token. The unknown token counts only if `text` spells it."""
        control, unknown = set(self.control), self.tokenizer.unk_token
        if unknown is not None and unknown not in text:
            control.discard(self.tokenizer.unk_token_id)
        return not control.isdisjoint(ids)

    def literal(self, text: str) -> list[int]:
        if self.without_control is not None:
            ids = self.without_control.encode(text, add_special_tokens=False).ids
        else:
            ids = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        if self.holds_control(ids, text):
            raise PamError(
                f"the tokenizer of {self.tokenizer.name_or_path} cannot encode {text!r} without a "
                "control token: change the text"
            )
        return ids

    @cached_property
    def without_control(self) -> Tokenizer | None:
        """A copy of the tokenizer's pipeline without control tokens; None for Python tokenizers."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            return None
        state = json.loads(backend.to_str())
        state["added_tokens"] = []
        state |= dict.fromkeys(("post_processor", "truncation", "padding"))
        hide_pieces(state["model"], set(self.control.values()))
        return Tokenizer.from_str(json.dumps(state))


def hide_pieces(model: dict, contents: set[str]) -> None:
    """Rename pieces of a model of `tokenizers` so that no text can spell them; ids are kept."""

    def hidden(piece: str) -> str:
        return f"\ue000{piece}\ue000" if piece in contents else piece

    if isinstance(model["vocab"], dict):
        model["vocab"] = {hidden(piece): number for piece, number in model["vocab"].items()}
    else:  # Unigram
        model["vocab"] = [[hidden(piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token"):
        model["unk_token"] = hidden(model["unk_token"])
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if "".join(pair) not in contents]
