"""OpenAI's Whisper checkpoint (.pt) to a transformers folder."""

from pathlib import Path

import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from convert.weights import load_exactly, rename

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
ENGLISH_ONLY_VOCABULARY = 51864


def convert(source: Path, folder: Path) -> None:
    """Write config, float16 weights (as released) and feature extractor into `folder`."""
    checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    model = WhisperForConditionalGeneration(_config(checkpoint["dims"])).half()
    weights = {"model." + rename(k, RENAMES): v for k, v in checkpoint["model_state_dict"].items()}
    load_exactly(model, weights, tied=["proj_out.weight"])
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=model.config.num_mel_bins).save_pretrained(folder)


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
