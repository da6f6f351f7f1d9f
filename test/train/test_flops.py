"""FLOPs of a training step against what torch counts in a real one."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toys import build_with_lora, make_batch, write_architectures
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pam.llm.lora import lora_layers
from pam.model import architecture as architectures
from pam.train.flops import EncoderFlops, peak_flops, training_flops


def counted(model, batch):
    """What torch counts. "eager" attention also computes the scores that causality masks."""
    assert model.llm.fast  # the probe of the fast layers is not counted
    for layer in lora_layers(model.llm.llm):
        layer.group = None  # torch does not count products in place
    with FlopCounterMode(display=False) as counter:
        model.train()(**batch)[0].backward()
    return counter.get_total_flops()


def with_masked(flops, batch):
    """The formula, and the masked half of the scores."""
    rows = batch["first_lengths"] + batch["text_lengths"] - 1
    masked = flops.pair * rows.square().sum() + flops.prompt_pair * batch["prompt_lengths"] ** 2
    return flops.of_batch(batch) + float(masked.sum()) / 2


@pytest.fixture
def config(tiny_config, tiny_llm, tmp_path, monkeypatch):
    """With an LLM of some depth: the backward pass leaves out a part of the first layer."""
    tokenizer, folder = AutoTokenizer.from_pretrained(tiny_llm), tmp_path / "deep"
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(tokenizer)}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads)).save_pretrained(folder)
    write_architectures(tmp_path, str(folder))
    monkeypatch.setattr(architectures, "FOLDER", tmp_path)
    tiny_config["llm_conf"] |= {"path": str(folder), "attention": "eager"}
    return tiny_config


def batch_of(model, prompt="Write it down, every word of it.", frames=30):
    """Two rows without padding, so that all that is computed is counted."""
    texts = ["hello there, my friend"] * 2
    return make_batch(model, [prompt] * 2, texts, [0, 0], [frames] * 2)


@pytest.mark.parametrize(("learns", "bank"), [(True, 0), (False, 0), (False, 1)])
def test_a_step(config, learns, bank):
    config["llm_conf"] |= {"lora_on_prompt": learns}
    config["prompt_bank"] = bank
    model = build_with_lora(config).train()
    batch = batch_of(model)
    if bank:
        model.keep_prompts({"asr_clean": ["Write it down, every word of it."]})
    # Measured: 0.6 and 0.2 % more.
    assert with_masked(training_flops(config), batch) == pytest.approx(
        counted(model, batch), rel=0.01
    )


@pytest.mark.parametrize(
    "longer", [{"frames": 60}, {"prompt": "Write it down, every word of it, and then some more."}]
)
def test_more_work_costs_as_much_more(config, longer):
    model, flops = build_with_lora(config), training_flops(config)
    short, long = batch_of(model), batch_of(model, **longer)
    grown = counted(model, long) - counted(model, short)
    assert with_masked(flops, long) - with_masked(flops, short) == pytest.approx(grown, rel=0.03)


def test_padding_is_no_work(config):
    model, flops = build_with_lora(config), training_flops(config)
    batch = batch_of(model)
    padded = batch | {"first": torch.zeros(2, 300, batch["first"].shape[-1])}
    assert flops.of_batch(padded) == flops.of_batch(batch)


def test_a_clip_is_padded_to_whole_pieces():
    assert EncoderFlops(2.0, 30.0).clip(31.0) == 120.0
    assert EncoderFlops(2.0).clip(31.0) == 62.0


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA A10G", None),
    ],
)
def test_peaks_are_found_by_name(name, tera):
    assert peak_flops(name) == (tera and tera * 1e12)
