"""Gradient checkpointing gives the gradients of a plain backward pass, and keeps less for it."""

import pytest
import torch
from families import FAMILIES
from test_fast_layers import gradients, slow, with_lora

from pam.errors import PamError
from pam.llm.merged import merged_copy
from pam.llm.recompute import refuse_unless_right

RECOMPUTED = ["gemma2", "llama", "mistral", "qwen2", "qwen3", "phi3"]  # at least these


def kept(compute) -> int:
    """Bytes that are saved for the backward pass, each storage once, during a computation."""
    found: dict[int, int] = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        compute()
    return sum(found.values())


def same(one, other):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("on_prompt", [True, False])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])  # the fast layers, and transformers'
def test_gradients_are_those_of_a_plain_pass(monkeypatch, tiny_llm, attention, on_prompt):
    """With dropout, whose masks are drawn again."""
    options = {"attention": attention, "lora_dropout": 0.3, "lora_on_prompt": on_prompt}
    plain = with_lora(monkeypatch, tiny_llm, "llama", **options)
    other = with_lora(monkeypatch, tiny_llm, "llama", **options, gradient_checkpointing=True)
    other.load_state_dict(plain.state_dict())
    expected = gradients(plain.train(), plain.read_answers)
    assert (plain.fast is None) == (other.train().fast is None) == (attention == "sdpa")
    same(gradients(other, other.read_answers), expected)
    plain.eval()
    assert not torch.equal(expected[1], gradients(plain, plain.read_answers)[1])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_less_is_kept(monkeypatch, tiny_llm, attention):
    plain = with_lora(monkeypatch, tiny_llm, "llama", attention=attention)
    other = with_lora(
        monkeypatch, tiny_llm, "llama", attention=attention, gradient_checkpointing=True
    )
    sizes = [kept(lambda lm=lm: gradients(lm, lm.read_answers)) for lm in (plain, other)]
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_recomputed_or_refused(monkeypatch, tiny_llm, family):
    try:
        lm = with_lora(monkeypatch, tiny_llm, family)
        expected = gradients(lm, slow(lm))
        refuse_unless_right(lm.llm, lm.backbone)
    except PamError as error:  # the LLM cannot be used at all, or not so
        assert family not in RECOMPUTED and "\n" not in str(error)
        return
    lm.recompute = True
    same(gradients(lm, slow(lm)), expected)


def test_a_merged_copy_runs_its_own_layers(monkeypatch, tiny_llm):
    """Also after a pass that recomputed those of the original."""
    lm = with_lora(monkeypatch, tiny_llm, "llama", attention="sdpa", gradient_checkpointing=True)
    gradients(lm, lm.read_answers)
    merged, ran = merged_copy(lm), []
    for owner in (lm, merged):
        for layer in owner.backbone.layers:
            layer.self_attn.register_forward_hook(lambda *_, owner=owner: ran.append(owner))
    with torch.no_grad():
        merged.read_prompts(*merged.prompt_batch(["Say it."]))
    assert ran == [merged] * len(merged.backbone.layers)
