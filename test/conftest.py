"""Fixtures that several rooms use: a tiny LLM on disk, a tiny Speech LLM, a tiny combined set."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook  # noqa: E402

# Shapes and types of these rooms are checked while tests run; before pam is imported.
install_import_hook(["pam.fusion", "pam.llm", "pam.model"], "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402
from toys import build_with_lora, make_batch  # noqa: E402

ENCODERS = {
    "first": {"family": "whisper", "path": "nowhere", "dim": 6, "num_states": 3},
    "second": {"family": "wavlm", "path": "nowhere", "dim": 4, "num_states": 2},
}

TINY = {  # a random LLM
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 0,
    "bos_token_id": 0,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory) -> str:
    """A folder with a random two-layer Llama and a byte tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-llm"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<end>": 0} | {symbol: i + 1 for i, symbol in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), **TINY)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_qwen(tiny_llm, tmp_path_factory) -> str:
    """A folder with a random two-layer Qwen2, whose queries, keys and values have a bias."""
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny-qwen"
    tokenizer = AutoTokenizer.from_pretrained(tiny_llm)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=True, **TINY)
    llm = Qwen2ForCausalLM(config)
    for name, parameter in llm.named_parameters():
        if name.endswith("_proj.bias"):  # they start as zero
            torch.nn.init.normal_(parameter, std=0.5)
    llm.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def tiny_config(tiny_llm) -> dict:
    """A configuration of a small PaM system in float32 over two encoders that are not loaded."""
    return {
        "encoders": ENCODERS,
        "llm_conf": {"path": tiny_llm, "dtype": "float32", "lora_rank": 2, "lora_alpha": 4},
        "fusion": "pam",
        "fusion_conf": {"num_fused": 2},
        "router_conf": {},
        "tasks": ["asr_clean", "asr_noisy", "snv", "ac"],
        "model_conf": {"bf16": False},
        "feats": "dumped",
    }


@pytest.fixture
def tiny_model(tiny_config):
    return build_with_lora(tiny_config)


@pytest.fixture
def batch(tiny_model) -> dict:
    return make_batch(
        tiny_model,
        prompts=["Write it down.", "How many speakers?", "Write it down."],
        texts=["hello there", "two", "a"],
        tasks=[0, 2, 0],
        frames=[7, 4, 5],
    )
