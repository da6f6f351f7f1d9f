"""LoRA on the linear layers of any family, and training that leaves the frozen LLM as it is."""

import pytest
import torch
from families import tiny_of
from torch import nn
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from pam.errors import PamError
from pam.llm import causal_lm
from pam.llm.causal_lm import CausalLM
from pam.llm.lora import lora_layers


def load(monkeypatch, tiny_llm, llm, **options):
    monkeypatch.setattr(causal_lm, "load_frozen", lambda *_: llm.requires_grad_(False))
    return CausalLM(tiny_llm, **{"dtype": "float32", "lora_rank": 2, **options})


def adapted(lm):
    return {name.split(".lora_")[0].rpartition(".")[2] for name in lora_names(lm)}


def lora_names(lm):
    return [name for name, parameter in lm.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize(
    "targets, names",
    [(["c_attn"], {"c_attn"}), ("all-linear", {"c_attn", "c_proj", "c_fc"})],
)
def test_gpt2s_transposed_layers_are_adapted(monkeypatch, tiny_llm, recwarn, targets, names):
    lm = load(monkeypatch, tiny_llm, tiny_of("gpt2"), lora_targets=targets, lora_alpha=6)
    assert adapted(lm) == names and all("lora_" in name for name in lora_names(lm))
    assert not [w for w in recwarn if "fan_in_fan_out" in str(w.message)]
    layer = lm.llm.transformer.h[0].attn.c_attn
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    nn.init.normal_(b)
    x = torch.randn(3, 32)
    base = layer.get_base_layer()
    expected = x @ base.weight + base.bias + 6 / 2 * x @ a.T @ b.T  # Conv1D: weight [in, out]
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_a_misspelt_target_of_gpt2_names_those_that_it_has(monkeypatch, tiny_llm):
    with pytest.raises(PamError, match="'q_proj': .*known: all-linear, c_attn, c_fc, c_proj$"):
        load(monkeypatch, tiny_llm, tiny_of("gpt2"))


def test_a_vision_tower_is_not_adapted(monkeypatch, tiny_llm):
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    text = tiny_of("gemma3").config.to_dict()
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    llm = Gemma3ForConditionalGeneration(config).eval()
    assert any(name.endswith("q_proj") for name, _ in llm.model.vision_tower.named_modules())
    lm = load(monkeypatch, tiny_llm, llm)
    assert lm.width == 32 and len(lora_names(lm)) == 2 * 2 * 2
    assert all(".language_model." in name for name in lora_names(lm))


@pytest.mark.parametrize("family", ["gpt2", "opt", "phi", "bloom", "falcon", "mpt", "gpt_neo"])
def test_training_does_not_switch_the_frozen_llms_dropout_on(monkeypatch, tiny_llm, family):
    llm = tiny_of(family)
    for module in llm.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
        for name in ("dropout", "attention_dropout", "layerdrop", "hidden_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.5)
    options = {"lora_targets": "all-linear", "lora_dropout": 0.5}
    lm = load(monkeypatch, tiny_llm, llm, **options)
    ids, lengths = lm.prompt_batch(["Write it down.", "Who?"])
    lm.eval()
    still = lm.read_prompts(ids, lengths).pooled
    lm.train()
    # LoRA starts as zero: only the LLM's own dropout could change what comes out.
    assert torch.equal(lm.read_prompts(ids, lengths).pooled, still)
    for layer in lora_layers(lm.llm):
        nn.init.normal_(layer.lora_B["default"].weight)
    lm.train()
    torch.manual_seed(0)
    assert not torch.equal(*(lm.read_prompts(ids, lengths).pooled for _ in range(2)))
    lm.eval()
    assert torch.equal(*(lm.read_prompts(ids, lengths).pooled for _ in range(2)))


@pytest.mark.parametrize("recomputed", [False, True])
def test_a_large_llm_is_built_without_its_gradients(monkeypatch, tiny_llm, recomputed):
    """In bfloat16 they take minutes on a CPU without AVX-512. One layer of a kind is run again."""
    llm = tiny_of("llama")
    first, *_ = llm.model.layers
    for layer in first.modules():
        layer.register_full_backward_hook(lambda *_: pytest.fail("a gradient was computed"))
    lm = load(monkeypatch, tiny_llm, llm, gradient_checkpointing=recomputed)
    assert len(llm.model.layers) > 1 and len(lora_names(lm)) == 2 * 2 * len(llm.model.layers)
