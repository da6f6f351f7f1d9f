"""The layers of `pam.llm.fast_layers` against transformers'."""

import pytest
import torch
from families import FAMILIES, tiny_of
from test_families import load

from pam.errors import PamError
from pam.llm.causal_lm import cheapest_split
from pam.llm.merged import merged_copy


def with_lora(monkeypatch, tiny_llm, family, **options):
    llm_conf = {"lora_rank": 2, "lora_targets": "all-linear", "attention": "eager"} | options
    without_window = {"use_sliding_window": False} if family == "qwen2" else {}
    lm = load(monkeypatch, tiny_llm, tiny_of(family, **without_window), **llm_conf)
    for name, parameter in lm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return lm


def given(lm):
    """Prompts and what follows them, both of different lengths."""
    prompts = lm.read_prompts(*lm.prompt_batch(["Say it.", "How many speakers are there?"]))
    words = lm.embed(torch.randint(len(lm.embeddings), (2, 6))).detach()
    real = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6]).bool()
    positions = prompts.mask.sum(1, keepdim=True) + torch.arange(6)
    return prompts, words, torch.cat([prompts.mask, real], 1), positions, real


def gradients(lm, read):
    """Of a scalar of the states: the states, and its gradients by the input and by LoRA."""
    torch.manual_seed(0)
    prompts, words, mask, positions, real = given(lm)
    lm.zero_grad()
    words = words.requires_grad_()
    states = read(prompts, words, mask, positions)[real]
    (states * torch.linspace(-1, 1, states.shape[-1]).to(states.dtype)).sum().backward()
    return [states.detach(), words.grad, *(p.grad for p in lm.parameters() if p.requires_grad)]


def slow(lm):
    def read(prompts, words, mask, positions):
        return lm.read(words, mask, positions, prompts.cache())

    return read


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "k_proj"]])
@pytest.mark.parametrize("family", ["llama", "qwen2"])  # qwen2 has biases
def test_states_and_gradients_are_transformers(monkeypatch, tiny_llm, family, targets):
    lm = with_lora(monkeypatch, tiny_llm, family, lora_targets=targets).double()
    assert lm.fast is not None
    for own, expected in zip(gradients(lm, lm.read_answers), gradients(lm, slow(lm)), strict=True):
        # transformers' norm is in float32 even here.
        assert (own - expected).norm() <= 1e-5 * expected.norm()


def test_in_bfloat16_they_differ_by_rounding(monkeypatch, tiny_llm):
    """Each is compared with float64: the fast layers round no worse than transformers'."""
    lm = with_lora(monkeypatch, tiny_llm, "llama")
    exact = gradients(lm.double(), slow(lm))
    lm.llm.bfloat16()
    for name, parameter in lm.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()

    def error(read) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            found = gradients(lm, read)
        apart = [(a.double() - b).norm() / b.norm() for a, b in zip(found, exact, strict=True)]
        return torch.stack(apart).mean().item()

    assert error(lm.read_answers) <= 1.25 * error(slow(lm))


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_right_or_left_to_transformers(monkeypatch, tiny_llm, family):
    """Windows, scaled residuals, capped scores and the like are found by structure or probe."""
    try:
        lm = with_lora(monkeypatch, tiny_llm, family)
    except PamError:  # the LLM cannot be used at all
        return
    if lm.fast is None:
        return
    torch.manual_seed(0)
    prompts, words, mask, positions, real = given(lm)
    own = lm.read_answers(prompts, words, mask, positions)[real]
    torch.testing.assert_close(
        own, slow(lm)(prompts, words, mask, positions)[real], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("family", ["mistral", "granite", "qwen3", "gemma2"])
def test_others_are_left_to_transformers(monkeypatch, tiny_llm, family):
    """A window (the tiny mistral has one), scaled residuals, norms of queries, capped scores."""
    assert with_lora(monkeypatch, tiny_llm, family).fast is None


def test_only_eager_attention_is_replaced(monkeypatch, tiny_llm):
    assert with_lora(monkeypatch, tiny_llm, "llama", attention="sdpa").fast is None


def test_a_float32_llm_under_autocast_is_left_to_transformers(monkeypatch, tiny_llm):
    lm = with_lora(monkeypatch, tiny_llm, "llama")
    monkeypatch.setattr(lm, "fast", None if lm.fast is None else refuse)
    with torch.autocast("cpu", torch.bfloat16):
        lm.read_answers(*given(lm)[:4])
    with pytest.raises(AssertionError, match="called"):
        lm.read_answers(*given(lm)[:4])


def refuse(*_):
    raise AssertionError("called")


def test_the_copy_for_decoding_has_none(monkeypatch, tiny_llm):
    assert merged_copy(with_lora(monkeypatch, tiny_llm, "llama")).fast is None


def test_prompts_of_training_are_those_of_decoding(monkeypatch, tiny_llm):
    """Short and long prompts are read apart, and come back in order, on the left of no padding."""
    lm = with_lora(monkeypatch, tiny_llm, "llama", lora_on_prompt=False, h_prompt="mean")
    prompts = [
        "It.",
        "Tell me how many speakers there are.",
        "No?",
        "Write down all words you hear.",
    ]
    ids, lengths = lm.prompt_batch(prompts)
    for pooling in ("mean", "last"):
        lm.h_prompt = pooling
        one, other = lm.read_training_prompts(ids, lengths), lm.read_prompts(ids, lengths)
        torch.testing.assert_close(one.pooled, other.pooled, rtol=1e-4, atol=1e-5)
        assert torch.equal(one.mask, other.mask)
        real = one.mask[:, None, :, None]
        for a, b in zip(one.keys + one.values, other.keys + other.values, strict=True):
            torch.testing.assert_close(a * real, b * real, rtol=1e-4, atol=1e-5)


def test_cheapest_split():
    assert cheapest_split([3]) == [1] and cheapest_split([4, 4, 4]) == [3]
    assert cheapest_split([2, 3, 9, 9]) == [2, 2] and cheapest_split([1, 9, 9, 9]) == [1, 3]
