"""Load the pretrained files of an LLM: tokenizer, configuration and frozen weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from pam.encoders.loading import quiet
from pam.errors import PamError
from pam.paths import resolve_model


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise not_loaded(folder, error) from error


def load_config(folder: str) -> PreTrainedConfig:
    """The configuration of a causal LLM. `PamError` for other kinds of models."""
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise not_loaded(folder, error) from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise PamError(
            f"llm_conf.path: {folder!r} is a {config.model_type} model, "
            "which transformers does not offer as a causal LLM"
        )
    return config


def llm_width(path: str) -> int:
    """D of the LLM at `path`, without its weights."""
    return load_config(resolve_model(path)).get_text_config(decoder=True).hidden_size


def llm_layers(path: str) -> int:
    """L, the number of decoder layers of the LLM at `path`, without its weights."""
    return load_config(resolve_model(path)).get_text_config(decoder=True).num_hidden_layers


def load_frozen(folder: str, dtype: str, attention: str) -> PreTrainedModel:
    """The pretrained LLM without gradients. `PamError` if weights are missing."""
    config = load_config(folder)
    try:
        with quiet():
            llm, info = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=torch_type(dtype),
                attn_implementation=attention,
                output_loading_info=True,
            )
    except ImportError as error:  # such as flash_attention_2 without its package
        reason = " ".join(str(error).split())
        raise PamError(f"llm_conf.attention: {attention}: {reason}: use sdpa") from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise not_loaded(folder, error) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise PamError(f"{folder}: {len(missing)} weights of the LLM are missing: {missing[0]} …")
    return llm.requires_grad_(False)


@contextmanager
def attention_of_cpu(llm: PreTrainedModel) -> Iterator[None]:
    """Context in which the LLM uses an attention implementation that needs no GPU."""
    chosen = llm.config._attn_implementation
    if chosen in ("eager", "sdpa"):
        yield
        return
    llm.set_attn_implementation("eager")
    try:
        yield
    finally:
        llm.set_attn_implementation(chosen)


def not_loaded(folder: str, error: Exception) -> PamError:
    reason = " ".join(str(error).split())
    return PamError(f"llm_conf.path: {folder!r} cannot be loaded as an LLM: {reason}")


def torch_type(name: str) -> torch.dtype:
    """The type called `name`, as in "bfloat16"."""
    if not isinstance(getattr(torch, name, None), torch.dtype):
        raise PamError(f"llm_conf.dtype: {name!r} is not a type of torch")
    return getattr(torch, name)
