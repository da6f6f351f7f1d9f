"""Tiny encoders of every family, with random weights, saved as real checkpoints are."""

from pathlib import Path

import torch
from transformers import (
    HubertConfig,
    HubertModel,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from pam.encoders.wakehubert import WakeHubertConfig, WakeHubertModel

SSL_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "layerdrop": 0.5,  # all of these must stay off in a frozen encoder
    "hidden_dropout": 0.5,
    "mask_time_prob": 0.5,
    "mask_time_length": 2,
}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}


def whisper(mels: int = 80) -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration(
        WhisperConfig(
            d_model=32,
            num_mel_bins=mels,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            vocab_size=60,
            pad_token_id=1,
            bos_token_id=1,
            eos_token_id=1,
            decoder_start_token_id=2,
            dropout=0.5,
            encoder_layerdrop=0.5,
        )
    )


def moonshine() -> MoonshineForConditionalGeneration:
    return MoonshineForConditionalGeneration(
        MoonshineConfig(
            hidden_size=32,
            intermediate_size=48,
            encoder_num_hidden_layers=2,
            decoder_num_hidden_layers=1,
            encoder_num_attention_heads=2,
            decoder_num_attention_heads=2,
            vocab_size=60,
            attention_dropout=0.5,
        )
    )


def wakehubert() -> WakeHubertModel:
    model = WakeHubertModel(
        WakeHubertConfig(channels=16, num_mels=8, dilations=[1, 4, 2], delay_frames=5)
    )
    torch.nn.init.normal_(model.basis, std=0.1)
    torch.nn.init.uniform_(model.mel)
    return model


# case: (family, model, conf, has a preprocessor_config that normalises)
CASES = {
    "whisper": ("whisper", whisper, {}),
    "whisper_unpadded": ("whisper", whisper, {"pad_to_30s": False}),
    "whisper_v3": ("whisper", lambda: whisper(mels=128), {"pad_to_30s": False, "tail_s": 0.0}),
    "wav2vec2_base": ("wav2vec2", lambda: Wav2Vec2ForCTC(Wav2Vec2Config(**SSL_SHAPE)), {}),
    "wav2vec2_large": ("wav2vec2", lambda: Wav2Vec2Model(Wav2Vec2Config(**SSL_SHAPE, **LARGE)), {}),
    "hubert": ("hubert", lambda: HubertModel(HubertConfig(**SSL_SHAPE)), {}),
    "hubert_large": ("hubert", lambda: HubertModel(HubertConfig(**SSL_SHAPE, **LARGE)), {}),
    "wavlm": ("wavlm", lambda: WavLMModel(WavLMConfig(**SSL_SHAPE)), {"normalize": False}),
    "wavlm_large": ("wavlm", lambda: WavLMModel(WavLMConfig(**SSL_SHAPE, **LARGE)), {}),
    "moonshine": ("moonshine", moonshine, {}),
    "wakehubert": ("wakehubert", wakehubert, {}),
}


def save_tiny(case: str, folder: Path) -> dict:
    """Save the case's checkpoint into `folder`; returns the encoder's spec."""
    family, make, conf = CASES[case]
    torch.manual_seed(7)
    model = make().eval()
    for parameter in model.parameters():  # initialisations near zero would hide mistakes
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    model.save_pretrained(folder)
    if family in ("wav2vec2", "hubert", "wavlm"):
        Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return {"family": family, "path": str(folder), "conf": conf}
