"""A bank of prompts gives what the LLM would read, whatever was asked before."""

import pytest
import torch
from families import tiny_of
from test_families import load

from pam.errors import PamError
from pam.llm.bank import PromptBank

PROMPTS = ["It.", "Tell me how many speakers there are.", "No?", "Write down all words you hear."]


@pytest.fixture
def lm(monkeypatch, tiny_llm):
    lora = {"lora_rank": 2, "lora_targets": "all-linear", "lora_on_prompt": False}
    options = lora | {"attention": "eager", "h_prompt": "mean"}
    return load(monkeypatch, tiny_llm, tiny_of("llama"), **options)


def test_states_are_those_that_the_llm_reads(lm):
    bank = PromptBank(lm, [*PROMPTS, PROMPTS[0]])
    assert len(bank.rows) == len(PROMPTS)
    asked = [PROMPTS[i] for i in (1, 3, 1)]
    ids, lengths = lm.prompt_batch(asked)
    known, read = bank.states(ids, lengths), lm.read_prompts(ids, lengths)
    torch.testing.assert_close(known.pooled, read.pooled, rtol=1e-4, atol=1e-5)
    assert torch.equal(bank.pooled(ids, lengths), known.pooled)
    assert torch.equal(known.mask, read.mask)
    real = read.mask[:, None, :, None]
    for a, b in zip(known.keys + known.values, read.keys + read.values, strict=True):
        torch.testing.assert_close(a * real, b * real, rtol=1e-4, atol=1e-5)


def test_states_are_the_same_to_the_bit_in_any_order_of_prompts(lm, monkeypatch):
    monkeypatch.setattr("pam.llm.bank.READ_TOGETHER", 3)
    one, other = PromptBank(lm, PROMPTS), PromptBank(lm, PROMPTS[::-1])
    assert one.place == other.place
    for a, b in zip(one.rows, other.rows, strict=True):
        assert all(map(torch.equal, [a.pooled, *a.keys, *a.values], [b.pooled, *b.keys, *b.values]))


def test_an_llm_whose_lora_acts_on_prompts_is_refused(lm):
    lm.lora_on_prompt = True
    with pytest.raises(PamError, match="prompt_bank: LoRA changes the states of prompts"):
        PromptBank(lm, PROMPTS)


def test_a_prompt_that_is_not_in_the_bank_is_an_error(lm):
    with pytest.raises(KeyError):
        PromptBank(lm, PROMPTS[:2]).states(*lm.prompt_batch(PROMPTS))
