"""The copy of the LLM for decoding, with LoRA in its weights."""

import pytest
import torch
from families import tiny_of
from test_families import load

from pam.llm.lora import lora_layers
from pam.llm.merged import merged_copy


def with_lora(monkeypatch, tiny_llm, family):
    lm = load(monkeypatch, tiny_llm, tiny_of(family), lora_rank=2, lora_targets="all-linear")
    for name, parameter in lm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return lm


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "gemma3_text"])
def test_it_gives_the_same_states(monkeypatch, tiny_llm, family):
    """In float64; gpt2 has transposed weights, qwen2 biases."""
    lm = with_lora(monkeypatch, tiny_llm, family).double()
    words = lm.embed(torch.tensor(lm.text_ids("Is it so?")))[None]
    before = {name: value.clone() for name, value in lm.state_dict().items()}
    expected = lm.backbone(inputs_embeds=words).last_hidden_state
    merged = merged_copy(lm)
    assert not lora_layers(merged.llm)
    torch.testing.assert_close(merged.backbone(inputs_embeds=words).last_hidden_state, expected)
    # The original is as it was, LoRA included.
    assert torch.equal(lm.backbone(inputs_embeds=words).last_hidden_state, expected)
    assert all(torch.equal(value, before[name]) for name, value in lm.state_dict().items())
    with torch.no_grad():
        for layer in lora_layers(lm.llm):
            layer.lora_B["default"].weight.zero_()
    assert not torch.equal(lm.backbone(inputs_embeds=words).last_hidden_state, expected)
    torch.testing.assert_close(merged.backbone(inputs_embeds=words).last_hidden_state, expected)


def test_weights_without_lora_are_shared(monkeypatch, tiny_llm):
    lm = with_lora(monkeypatch, tiny_llm, "llama")
    merged = merged_copy(lm)
    assert merged.embeddings.data_ptr() == lm.embeddings.data_ptr()
    assert merged.tokenizer is lm.tokenizer and merged.eos == lm.eos
    adapted = len(lora_layers(lm.llm))
    own = {p.data_ptr() for p in merged.parameters()} - {p.data_ptr() for p in lm.parameters()}
    assert len(own) == adapted


@torch.no_grad()
def test_it_decodes_in_the_type_of_the_llm(monkeypatch, tiny_llm):
    lm = with_lora(monkeypatch, tiny_llm, "llama")
    lm.llm.bfloat16()
    for name, parameter in lm.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    merged = merged_copy(lm)
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    words = lm.embed(torch.tensor(lm.text_ids("Is it so?")))[None]
    with torch.autocast("cpu", torch.bfloat16):
        expected = lm.backbone(inputs_embeds=words).last_hidden_state.float()
    found = merged.backbone(inputs_embeds=words).last_hidden_state.float()
    assert (found - expected).norm() < 0.05 * expected.norm()
