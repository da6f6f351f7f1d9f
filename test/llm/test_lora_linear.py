"""LoRA layers that compute together, against PEFT's own."""

import pytest
import torch
from families import tiny_of
from test_families import load

from pam.llm.lora import without_lora
from pam.llm.lora_linear import LoRALinear


def with_lora(monkeypatch, tiny_llm, family="qwen2", **options):
    llm_conf = {"lora_rank": 2, "lora_alpha": 3, "lora_targets": "all-linear"} | options
    lm = load(monkeypatch, tiny_llm, tiny_of(family), **llm_conf)
    for name, parameter in lm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return lm


def layers_of(lm) -> dict[str, LoRALinear]:
    return {n: layer for n, layer in lm.llm.named_modules() if isinstance(layer, LoRALinear)}


def gradients(lm, words, autocast=False):
    """Of a scalar of the states: the states, and its gradients by the input and by LoRA."""
    lm.zero_grad()
    words = words.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        states = lm.backbone(inputs_embeds=words, use_cache=False).last_hidden_state
    (states * torch.linspace(-1, 1, states.shape[-1]).to(states.dtype)).sum().backward()
    return [states.detach(), words.grad, *(p.grad for p in lm.parameters() if p.requires_grad)]


def words_of(lm):
    return lm.embed(torch.tensor([lm.text_ids("Is it so?"), lm.text_ids("It is no.")])).detach()


def peft_only(lm):
    for layer in layers_of(lm).values():
        layer.group = None


# qwen2 has biases; phi's attention and FFN have one input; gpt_neox has one layer for q, k and v.
@pytest.mark.parametrize("family", ["llama", "qwen2", "phi", "gpt_neox", "gemma3_text"])
def test_states_and_gradients_are_pefts(monkeypatch, tiny_llm, family):
    lm = with_lora(monkeypatch, tiny_llm, family).double()
    words = words_of(lm)
    together = gradients(lm, words)
    peft_only(lm)
    for own, expected in zip(together, gradients(lm, words), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_under_autocast_they_round_no_worse(monkeypatch, tiny_llm, dtype):
    """Both are compared with float64."""
    lm = with_lora(monkeypatch, tiny_llm)
    words = words_of(lm)
    peft_only(lm.double())
    exact = gradients(lm, words.double())
    grouped = with_lora(monkeypatch, tiny_llm)
    grouped.load_state_dict(lm.state_dict())

    def error(lm) -> float:
        lm.llm.to(dtype)
        for name, parameter in lm.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()
        found = gradients(lm, words.to(dtype), autocast=True)
        assert {p.grad.dtype for p in lm.parameters() if p.requires_grad} == {torch.float32}
        apart = [(a.double() - b).norm() / b.norm() for a, b in zip(found, exact, strict=True)]
        return torch.stack(apart).mean().item()

    assert error(grouped) <= 1.25 * error(lm)


def test_layers_with_one_input_are_a_group(monkeypatch, tiny_llm):
    groups = {}
    for name, layer in layers_of(with_lora(monkeypatch, tiny_llm)).items():
        if ".layers.0." in name:
            groups.setdefault(layer.group, []).append(name.rpartition(".")[2])
    assert sorted(map(sorted, groups.values())) == [
        ["down_proj"],
        ["gate_proj", "up_proj"],
        ["k_proj", "q_proj", "v_proj"],
        ["o_proj"],
    ]


def test_a_group_computes_once_and_keeps_nothing(monkeypatch, tiny_llm):
    lm = with_lora(monkeypatch, tiny_llm)
    layers = [layer for name, layer in layers_of(lm).items() if ".layers.0.self_attn" in name]
    query, key, value = layers[:3]
    group, x = query.group, torch.randn(2, 3, lm.width)
    expected = [layer.base_layer(x) for layer in (query, key, value)]
    calls, products = [], group.products
    monkeypatch.setattr(group, "products", lambda x: calls.append(1) or products(x))
    first = [query(x), key(x), value(x)]
    assert len(calls) == 1 and group.input is None and not group.outputs
    query.lora_B["default"].weight.data.zero_()  # the same input again must be computed again
    again = query(x)
    torch.testing.assert_close(again, expected[0])
    assert not torch.allclose(first[0], again) and len(calls) == 2
    with without_lora(lm.llm):
        torch.testing.assert_close(value(x), expected[2])


def test_dropout_leaves_the_layers_to_peft(monkeypatch, tiny_llm):
    lm = with_lora(monkeypatch, tiny_llm, lora_dropout=0.5)
    assert all(layer.group is None for layer in layers_of(lm).values())
    lm.train()
    x = torch.randn(2, 3, lm.width)
    layer = next(iter(layers_of(lm).values()))
    assert not torch.equal(layer(x), layer(x))
