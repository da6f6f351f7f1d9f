"""Whisper as OpenAI (.pt) or CTranslate2 (model.bin) saved it, to a transformers folder."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from convert.ctranslate2_file import read_ctranslate2
from convert.weights import load_exactly, rename
from pam.errors import PamError

# OpenAI's names and ours; within a name every pair is applied, in this order.
RENAMES = [
    (r"\bblocks\b", "layers"),
    (r"\bmlp\.0\b", "fc1"),
    (r"\bmlp\.2\b", "fc2"),
    (r"\bmlp_ln\b", "final_layer_norm"),
    (r"\bcross_attn_ln\b", "encoder_attn_layer_norm"),
    (r"\bcross_attn\b", "encoder_attn"),
    (r"\battn_ln\b", "self_attn_layer_norm"),
    (r"\battn\b", "self_attn"),
    (r"\b(ln_post|ln)\b", "layer_norm"),
    (r"\bquery\b", "q_proj"),
    (r"\bkey\b", "k_proj"),
    (r"\bvalue\b", "v_proj"),
    (r"\bout\b", "out_proj"),
    (r"\btoken_embedding\b", "embed_tokens"),
    (r"\bpositional_embedding\b", "embed_positions.weight"),
]
# CTranslate2's names and ours.
CTRANSLATE2_RENAMES = [
    (r"/", "."),
    (r"\blayer_(\d+)\b", r"layers.\1"),
    (r"\bffn\.linear_0\b", "fc1"),
    (r"\bffn\.linear_1\b", "fc2"),
    (r"\bffn\.layer_norm\b", "final_layer_norm"),
    (r"\bself_attention\.layer_norm\b", "self_attn_layer_norm"),
    (r"(?<!self_)attention\.layer_norm\b", "encoder_attn_layer_norm"),
    (r"\bself_attention\b", "self_attn"),
    (r"\battention\b", "encoder_attn"),
    (r"\bgamma$", "weight"),
    (r"\bbeta$", "bias"),
    (r"\bembeddings\.weight$", "embed_tokens.weight"),
    (r"\bposition_encodings\.encodings$", "embed_positions.weight"),
]
# What attention's linear layers hold, joined along their outputs.
PROJECTIONS = {
    "self_attn.linear_0": ("q_proj", "k_proj", "v_proj"),
    "self_attn.linear_1": ("out_proj",),
    "encoder_attn.linear_0": ("q_proj",),
    "encoder_attn.linear_1": ("k_proj", "v_proj"),
    "encoder_attn.linear_2": ("out_proj",),
}
ENGLISH_ONLY_VOCABULARY = 51864


def convert(source: Path, folder: Path) -> None:
    """Write config, float16 weights (as released) and feature extractor into `folder`."""
    checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    weights = {rename(k, RENAMES): v for k, v in checkpoint["model_state_dict"].items()}
    _write(checkpoint["dims"], weights, folder)


def convert_ctranslate2(source: Path, folder: Path) -> None:
    """The same of CTranslate2's file, whose weights are float16 too."""
    found = read_ctranslate2(source, "WhisperSpec")
    try:
        _write(_dims(found), _separate(found), folder)
    except (KeyError, ValueError) as error:
        raise PamError(f"{source}: not a Whisper as we know it: {error}") from error


def _write(dims: dict[str, int], weights: dict[str, Tensor], folder: Path) -> None:
    """weights: by our names, without "model."."""
    model = WhisperForConditionalGeneration(_config(dims)).half()
    load_exactly(model, {f"model.{k}": v for k, v in weights.items()}, tied=["proj_out.weight"])
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=model.config.num_mel_bins).save_pretrained(folder)


def _dims(found: dict[str, np.ndarray]) -> dict[str, int]:
    """By OpenAI's names. Settings are variables without an axis."""
    vocabulary, width = found["decoder/embeddings/weight"].shape
    return {
        "n_vocab": vocabulary,
        "n_mels": found["encoder/conv1/weight"].shape[1],
        "n_audio_state": width,
        "n_audio_layer": _layers(found, "encoder"),
        "n_audio_head": int(found["encoder/num_heads"]),
        "n_audio_ctx": len(found["encoder/position_encodings/encodings"]),
        "n_text_state": width,
        "n_text_layer": _layers(found, "decoder"),
        "n_text_head": int(found["decoder/num_heads"]),
        "n_text_ctx": len(found["decoder/position_encodings/encodings"]),
    }


def _layers(found: dict[str, np.ndarray], side: str) -> int:
    last = "/ffn/linear_1/bias"
    return sum(key.startswith(f"{side}/layer_") and key.endswith(last) for key in found)


def _separate(found: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The weights by our names. Whisper's keys have no bias, which the file says with zeros."""
    weights = {}
    for key, value in found.items():
        if not value.ndim or key == "decoder/projection/weight":  # that of the embeddings
            continue
        name = rename(key, CTRANSLATE2_RENAMES)
        layer, _, kind = name.rpartition(".")
        block, _, attention = layer.rpartition(".layers.")[2].partition(".")
        parts = PROJECTIONS.get(attention)
        if parts is None:
            weights[name] = torch.tensor(value)
            continue
        stem = layer.removesuffix(layer.rpartition(".")[2])
        for part, values in zip(parts, np.split(value, len(parts)), strict=True):
            if (part, kind) != ("k_proj", "bias"):
                weights[f"{stem}{part}.{kind}"] = torch.tensor(values)
            elif values.any():
                raise ValueError(f"{key} gives the keys of block {block} a bias")
    return weights


def _config(dims: dict[str, int]) -> WhisperConfig:
    end = 50256 if dims["n_vocab"] == ENGLISH_ONLY_VOCABULARY else 50257
    return WhisperConfig(
        vocab_size=dims["n_vocab"],
        num_mel_bins=dims["n_mels"],
        d_model=dims["n_audio_state"],
        encoder_layers=dims["n_audio_layer"],
        encoder_attention_heads=dims["n_audio_head"],
        encoder_ffn_dim=4 * dims["n_audio_state"],
        decoder_layers=dims["n_text_layer"],
        decoder_attention_heads=dims["n_text_head"],
        decoder_ffn_dim=4 * dims["n_text_state"],
        max_source_positions=dims["n_audio_ctx"],
        max_target_positions=dims["n_text_ctx"],
        decoder_start_token_id=end + 1,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
