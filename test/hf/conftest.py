"""Trained models to export: tiny encoders of real families, tiny LLMs, random learned weights."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from toys import build_with_lora
from transformers import AutoTokenizer

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "encoders"), str(HERE.parent / "llm")]
torch.set_num_threads(1)

from families import tiny_of  # noqa: E402
from tiny import save_tiny  # noqa: E402

from pam.checkpoint import write_checkpoint  # noqa: E402

TASKS = ["asr_clean", "asr_noisy", "snv", "ac"]


@pytest.fixture(scope="session")
def encoder_specs(tmp_path_factory) -> dict[str, dict]:
    specs = {}
    for case, states in (("whisper_unpadded", 3), ("wavlm", 3)):
        specs[case] = save_tiny(case, tmp_path_factory.mktemp(case))
        specs[case] |= {"dim": 32, "num_states": states}
    return specs


@pytest.fixture(scope="session")
def llms(tiny_llm, tiny_qwen, tmp_path_factory) -> dict[str, str]:
    """Folders of tiny LLMs: gemma3 has windows and scaled embeddings, gpt2 transposed weights."""
    found = {"llama": tiny_llm, "qwen2": tiny_qwen}
    for family in ("gemma3_text", "gpt2"):
        folder = tmp_path_factory.mktemp("models") / f"tiny-{family}"
        tiny_of(family).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_llm).save_pretrained(folder)
        found[family] = str(folder)
    return found


@pytest.fixture(scope="session")
def experiment(encoder_specs, llms, tmp_path_factory):
    """Writes exp/NAME of a family of LLMs; options of llm_conf and of the configuration."""

    def write(family: str, encoders: dict | None = None, llm_conf: dict | None = None, **more):
        exp = tmp_path_factory.mktemp("exp") / f"tiny_{family}"
        exp.mkdir()
        own = {"path": llms[family], "dtype": "float32", "lora_rank": 2, "lora_alpha": 4}
        own |= {"lora_targets": "all-linear", "h_prompt": "mean"} | (llm_conf or {})
        config = {
            "encoders": encoders or encoder_specs,
            "llm_conf": own,
            "fusion": "pam",
            "fusion_conf": {"num_fused": 2, "adapter": {"stack": 3}},
            "router_conf": {"standardize": True},
            "tasks": TASKS,
            "model_conf": {"bf16": False, "feature_scale": "embedding"},
            "feats": "online",
        } | more
        (exp / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        model = build_with_lora(config)
        write_checkpoint(exp / "model.pth", model.state_dict())
        model.llm.template.write(exp)
        return exp

    return write
