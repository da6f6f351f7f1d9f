"""A user's text is text, and what a template writes is the same on every day."""

import datetime
import json
import types

import pytest
import transformers.utils.chat_template_utils as chat_utils
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_python import PreTrainedTokenizer

from pam.errors import PamError
from pam.llm.causal_lm import CausalLM
from pam.llm.template import Template, make_template
from pam.llm.text import TextEncoder, markup_ids
from pam.model.build import build_model

SPELT = ["<|im_end|>", "a </s> b", "<s><unk></s>", "so <end>", "<think>no</think> 2", "x<pad>"]
CONTROL = ["<s>", "</s>", "<pad>", "<end>", "<|im_end|>"]
THINK = "{% for m in messages %}<think></think>{{ m.content }}<|im_end|>{% endfor %}"


def bpe():
    """Bytes, as Llama 3's and Qwen's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return inner


def whole_word_bpe():
    """As Llama 3's: a piece that is in the vocabulary needs no merges."""
    inner = bpe()
    state = json.loads(inner.to_str())
    state["model"]["ignore_merges"] = True
    state["model"]["vocab"] |= {token: 300 + i for i, token in enumerate(CONTROL)}
    state["pre_tokenizer"] = {**state["pre_tokenizer"], "use_regex": False}
    return Tokenizer.from_str(json.dumps(state))


def unigram():
    """As sentencepiece's: control tokens are pieces of the model too."""
    letters = sorted({c for text in SPELT for c in text.replace(" ", "▁")} | {"▁"})
    pieces = [("<unk>", 0.0), *((token, 0.0) for token in CONTROL), *((c, -5.0) for c in letters)]
    inner = Tokenizer(models.Unigram(pieces, unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    inner.decoder = decoders.Metaspace(prepend_scheme="never")
    return inner


def fast(inner, **more):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", **more)
    tokenizer.add_special_tokens({"extra_special_tokens": CONTROL})
    tokenizer.add_tokens([AddedToken(t, special=False) for t in ("<think>", "</think>")])
    tokenizer.chat_template = THINK
    return tokenizer


class Letters(PreTrainedTokenizer):
    """A tokenizer in Python."""

    def __init__(self, **options):
        self.letters = {chr(i): i for i in range(256)}
        super().__init__(**options)

    @property
    def vocab_size(self):
        return 256

    def get_vocab(self):
        return self.letters | self.added_tokens_encoder

    def _tokenize(self, text, **_):
        return list(text)

    def _convert_token_to_id(self, token):
        return self.letters.get(token, 0)

    def _convert_id_to_token(self, index):
        return chr(index)

    def convert_tokens_to_string(self, tokens):
        return "".join(tokens)


def slow():
    tokenizer = Letters(eos_token="</s>")
    tokenizer.add_special_tokens({"extra_special_tokens": CONTROL})
    tokenizer.add_tokens([AddedToken(t, special=False) for t in ("<think>", "</think>")])
    tokenizer.chat_template = THINK
    return tokenizer


KINDS = {
    "bpe": lambda: fast(bpe()),
    "whole words": lambda: fast(whole_word_bpe()),
    "unigram": lambda: fast(unigram(), unk_token="<unk>"),
    "python": slow,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_control_token_that_a_user_spells_is_its_letters(kind):
    tokenizer = KINDS[kind]()
    encode = TextEncoder(tokenizer)
    for text in SPELT:
        ids, control = encode(text), set(tokenizer.added_tokens_decoder)
        assert not control & set(ids) and len(ids) > 2, text
        assert control & set(markup_ids(tokenizer, text)), text  # what would be read without it
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert encode("a b") == markup_ids(tokenizer, "a b")


def test_a_text_that_cannot_be_written_is_one_line():
    tokenizer = fast(unigram(), unk_token="<unk>")
    with pytest.raises(PamError, match="cannot encode 'é<unk>' without a control token"):
        TextEncoder(tokenizer)("é<unk>")  # é is unknown to it
    assert TextEncoder(tokenizer)("é") == [0]


def test_transcripts_and_prompts_are_text(tiny_llm):
    llm = CausalLM(tiny_llm, lora_rank=0)
    text = "He typed <end> and left"
    assert llm.eos not in llm.answer_ids(text) and llm.eos not in llm.prompt_ids(text)
    assert llm.tokenizer.decode(llm.answer_ids(text), skip_special_tokens=True).strip() == text


@pytest.fixture
def tokenizer(tiny_llm):
    return AutoTokenizer.from_pretrained(tiny_llm)


def on_day(monkeypatch, day):
    class Day(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, day)

    if isinstance(chat_utils.datetime, types.ModuleType):
        monkeypatch.setattr(chat_utils, "datetime", types.SimpleNamespace(datetime=Day))
    else:
        monkeypatch.setattr(chat_utils, "datetime", Day)


@pytest.mark.parametrize(
    "date, written",
    [
        ("{{ strftime_now('%B %d, %Y') }}", "July 26, 2024"),
        ("{{ strftime_now('%-d %b %y (%A)') }}", "26 Jul 24 (Friday)"),
        ("{% if strftime_now is defined %}{{ strftime_now('%Y-%m-%d') }}{% endif %}", "2024-07-26"),
        ("{% macro head() %}{{ strftime_now('%F') }}{% endmacro %}{{ head() }}", "2024-07-26"),
        ("{{ date_string or strftime_now('%d %b %Y') }}", "26 Jul 2024"),
    ],
)
def test_a_dated_template_is_the_same_tomorrow(monkeypatch, tokenizer, date, written):
    tokenizer.chat_template = (
        date + "{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{% if m.role == 'assistant' %}<end>{% endif %}{% endfor %}"
    )
    openings = []
    for day in (1, 2):
        on_day(monkeypatch, day)
        openings.append(tokenizer.decode(make_template(tokenizer, "chat").opening))
    assert openings == [f"{written}user: "] * 2


@pytest.mark.parametrize(
    "chat, reason",
    [
        ("{{ raise_exception('Roles must\nalternate') }}", "Roles must alternate"),
        (
            "{% if messages[0].role != 'system' %}{{ raise_exception('needs a system turn') }}"
            "{% endif %}",
            "needs a system turn",
        ),
        ("{{ messages[0].name.first }}", "has no attribute 'name'"),
        ("{{ messages[0].content + 1 }}", "str"),
        ("{{ messages[9].content }}", "no element 9|list index|has no"),
        ("{% for m in messages %}", "endfor"),
    ],
)
def test_a_template_that_raises_is_one_line(tokenizer, chat, reason):
    tokenizer.chat_template = chat
    with pytest.raises(PamError, match=f"chat template of .*{reason}.*: use plain") as error:
        make_template(tokenizer, "chat")
    assert "\n" not in str(error.value)


def test_an_experiment_keeps_its_template(tiny_config, tmp_path):
    kept = Template(opening=(5, 6), closing=(7,), joint="", end=3)
    kept.write(tmp_path)
    Template((1,), (), " ", 0).write(tmp_path)  # that of a later build: the first one stays
    assert Template.read(tmp_path) == kept and Template.read(tmp_path / "other") is None
    model = build_model(tiny_config, template=Template.read(tmp_path))
    assert model.llm.prompt_ids("a")[:2] == [5, 6] and model.llm.eos == 3
    (tmp_path / "template.json").write_text('{"opening": []}')
    with pytest.raises(PamError, match="template.json: not a template of an experiment"):
        Template.read(tmp_path)
