"""Templates: the token ids around the prompt, the audio and the answer.

The LLM reads  opening · prompt | audio · closing · answer · end.  The part before the bar does not
depend on the audio, so it is read once per distinct prompt. Its last token belongs to the prompt;
equation 7 takes h_prompt there.

- "plain": the tokenizer's own start of a text (Llama's BOS; Qwen and SmolLM have none), and no
  tokens between audio and answer. The end is the tokenizer's `eos_token`: `<|endoftext|>` of
  Qwen2.5, `<|im_end|>` of its instruct models, `<|end_of_text|>` and `<|eot_id|>` of Llama 3.
- "chat": the tokenizer's chat template with prompt and audio in the user's turn. The opening is the
  template's text before the user's text, including the system turn. The closing ends the user's
  turn and begins the assistant's. The end is the template's text after an answer: `<|im_end|>` for
  Qwen2.5-3B, whose `eos_token` is another one.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from pam.atomic import write_json
from pam.errors import PamError
from pam.llm.text import markup_ids
from pam.registry import nearest

USER, ANSWER = "\ue000", "\ue001"  # placeholders of the texts: private code points
TODAY = datetime(2024, 7, 26)  # many templates write the date, but prompts must not change
FILE = "template.json"  # in exp/NAME


@dataclass(frozen=True)
class Template:
    """Token ids around the texts.

    `joint` is text between audio and answer that is tokenized together with the answer.
    """

    opening: tuple[int, ...]
    closing: tuple[int, ...]
    joint: str
    end: int

    def write(self, exp: Path) -> None:
        """Write it to exp/NAME, unless the experiment has one."""
        if not (exp / FILE).is_file():
            write_json(exp / FILE, asdict(self))

    @classmethod
    def read(cls, exp: Path) -> "Template | None":
        """The template that an experiment was trained with; None if it has none."""
        if not (exp / FILE).is_file():
            return None
        try:
            kept = json.loads((exp / FILE).read_text(encoding="utf-8"))
            opening, closing = (tuple(map(int, kept.pop(key))) for key in ("opening", "closing"))
            return cls(opening, closing, **kept)
        except (ValueError, KeyError, TypeError) as error:
            raise PamError(f"{exp / FILE}: not a template of an experiment: {error!r}") from error


def plain_template(tokenizer: PreTrainedTokenizerBase) -> Template:
    """No template: the answer begins with a space, like a word after other words."""
    if tokenizer.eos_token_id is None:
        raise PamError(f"llm_conf.path: the tokenizer of {tokenizer.name_or_path} has no eos_token")
    return Template(tuple(tokenizer("").input_ids), (), " ", tokenizer.eos_token_id)


def chat_template(tokenizer: PreTrainedTokenizerBase) -> Template:
    """The tokens of the chat template around its texts."""
    if not tokenizer.chat_template:
        raise PamError(
            f"llm_conf.template: the tokenizer of {tokenizer.name_or_path} has no chat template: "
            "use plain, or an instruct model"
        )
    turns = [{"role": "user", "content": USER}, {"role": "assistant", "content": ANSWER}]
    # A template may treat the last turn in its own way: ask for what comes before the answer alone.
    asked = render(tokenizer, turns[:1], add_generation_prompt=True)
    answered = render(tokenizer, turns)
    if asked.count(USER) != 1 or answered.count(ANSWER) != 1:
        raise PamError(
            f"llm_conf.template: the chat template of {tokenizer.name_or_path} does not hold each "
            "turn's text once: use plain"
        )
    opening, closing = asked.split(USER)
    after = markup_ids(tokenizer, answered.split(ANSWER)[1])
    if not after or after[0] not in tokenizer.added_tokens_decoder:
        raise PamError(
            f"llm_conf.template: the chat template of {tokenizer.name_or_path} ends an answer with "
            "no special token: use plain"
        )
    ids = (tuple(markup_ids(tokenizer, text)) for text in (opening, closing))
    return Template(*ids, joint="", end=after[0])


def render(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], **options) -> str:
    """The template's text with a fixed date. `PamError` if the template fails."""
    options |= {"date_string": TODAY.strftime("%d %b %Y"), "tokenize": False}
    try:
        dated = fixed_clock() + tokenizer.get_chat_template()
        return tokenizer.apply_chat_template(turns, chat_template=dated, **options)
    except (TemplateError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise PamError(
            f"llm_conf.template: the chat template of {tokenizer.name_or_path} refuses a user's "
            f"turn and its answer: {' '.join(str(error).split())}: use plain, or another model"
        ) from error


def fixed_clock() -> str:
    """A Jinja macro that replaces transformers' `strftime_now` in templates by the date `TODAY`."""
    codes = [f"%{flag}{letter}" for letter in "aAbBcdDeFhHIjmMpSTuwxXyY" for flag in ("", "-")]
    steps = "".join(f" | replace('{code}', '{TODAY.strftime(code)}')" for code in codes)
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{steps} }}}}{{%- endmacro -%}}"


TEMPLATES: Mapping[str, Callable[[PreTrainedTokenizerBase], Template]] = {
    "plain": plain_template,
    "chat": chat_template,
}


def make_template(tokenizer: PreTrainedTokenizerBase, name: str) -> Template:
    if name not in TEMPLATES:
        raise PamError(f"llm_conf.template: {name!r}: {nearest(name, TEMPLATES)}")
    return TEMPLATES[name](tokenizer)
