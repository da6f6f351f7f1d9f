"""Tiny encoders of every family, with random weights, saved as real checkpoints are."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
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

from pam.encoders.resemblyzer import ResemblyzerConfig, ResemblyzerModel
from pam.encoders.wakehubert import WakeHubertConfig, WakeHubertModel
from pam.encoders.yamnet import YamnetConfig, YamnetModel

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
WAVLM_LARGE = LARGE | {"conv_bias": False}


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


def yamnet() -> YamnetModel:
    return YamnetModel(YamnetConfig(channels=[6, 8, 16, 16], strides=[2, 1, 2, 1]))


def resemblyzer() -> ResemblyzerModel:
    return ResemblyzerModel(ResemblyzerConfig(num_mels=8, hidden_size=16, num_layers=2))


BEATS_CFG = {
    "input_patch_size": 16,
    "embed_dim": 24,
    "conv_bias": False,
    "encoder_layers": 3,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 2,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": True,
    "dropout": 0.5,
    "attention_dropout": 0.5,
    "encoder_layerdrop": 0.5,
    "conv_pos": 6,
    "conv_pos_groups": 4,
    "relative_position_embedding": True,
    "num_buckets": 16,
    "max_distance": 20,
    "gru_rel_pos": True,
    "finetuned_model": True,
    "predictor_class": 5,
}
EAT_CONFIG = {
    "model_type": "eat",
    "architectures": ["EATModel"],
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 1.5,
    "norm_eps": 1e-6,
    "patch_size": 16,
    "stride": 16,
    "in_chans": 1,
    "mel_bins": 128,
    "max_length": 6,
    "img_size": [96, 128],
    "layer_norm_first": False,
    "drop_rate": 0.5,
}


def beats_weights() -> dict[str, Tensor]:
    """Random weights under the names and in the shapes of the original checkpoints."""
    width, hidden, patch = 32, 48, 24
    shapes = {
        "patch_embedding.weight": (patch, 1, 16, 16),
        "layer_norm": (patch,),
        "post_extract_proj": (width, patch),
        "encoder.pos_conv.0.weight_g": (1, 1, 6),
        "encoder.pos_conv.0.weight_v": (width, width // 4, 6),
        "encoder.pos_conv.0.bias": (width,),
        "encoder.layer_norm": (width,),
        "predictor": (5, width),
    }
    for i in range(3):
        layer = f"encoder.layers.{i}"
        shapes |= {f"{layer}.self_attn.{x}_proj": (width, width) for x in ("k", "v", "q", "out")}
        shapes |= {
            f"{layer}.self_attn.grep_linear": (8, width // 2),
            f"{layer}.self_attn.grep_a": (1, 2, 1, 1),
            f"{layer}.self_attn.relative_attention_bias.weight": (16, 2),
            f"{layer}.self_attn_layer_norm": (width,),
            f"{layer}.fc1": (hidden, width),
            f"{layer}.fc2": (width, hidden),
            f"{layer}.final_layer_norm": (width,),
        }
    weights = random_weights(shapes)
    for i in (1, 2):  # all layers share the first one's
        name = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
        weights[name.format(i)] = weights[name.format(0)]
    return weights


def eat_weights() -> dict[str, Tensor]:
    """Random weights under the names and in the shapes of the Hugging Face port."""
    width, hidden = 32, 48
    shapes = {
        "local_encoder.proj.weight": (width, 1, 16, 16),
        "local_encoder.proj.bias": (width,),
        "extra_tokens": (1, 1, width),
        "fixed_positional_encoder.positions": (1, 48, width),
        "pre_norm": (width,),
    }
    for i in range(2):
        shapes |= {
            f"blocks.{i}.norm1": (width,),
            f"blocks.{i}.attn.qkv": (3 * width, width),
            f"blocks.{i}.attn.proj": (width, width),
            f"blocks.{i}.norm2": (width,),
            f"blocks.{i}.mlp.fc1": (hidden, width),
            f"blocks.{i}.mlp.fc2": (width, hidden),
        }
    return {f"model.{key}": value for key, value in random_weights(shapes).items()}


def ecapa_weights() -> dict[str, Tensor]:
    """Random weights under the names and in the shapes of SpeechBrain's embedding_model.ckpt."""
    width, part, mels = 16, 4, 6
    tdnns = {"blocks.0": (width, mels, 5), "mfa": (24, 3 * width, 1), "asp.tdnn": (4, 72, 1)}
    convs = {"asp.conv": (24, 4, 1), "fc": (5, 48, 1)}
    norms = {"asp_bn": 48}
    for i in (1, 2, 3):
        tdnns |= {f"blocks.{i}.tdnn{n}": (width, width, 1) for n in (1, 2)}
        tdnns |= {f"blocks.{i}.res2net_block.blocks.{n}": (part, part, 3) for n in range(3)}
        convs[f"blocks.{i}.se_block.conv1"] = (8, width, 1)
        convs[f"blocks.{i}.se_block.conv2"] = (width, 8, 1)
    norms |= {f"{name}.norm": shape[0] for name, shape in tdnns.items()}
    convs |= {f"{name}.conv": shape for name, shape in tdnns.items()}
    weights = {}
    for name, shape in convs.items():
        weights |= {f"{name}.conv.weight": shape, f"{name}.conv.bias": shape[:1]}
    for name, channels in norms.items():
        kept = ("weight", "bias", "running_mean", "running_var")
        weights |= {f"{name}.norm.{part}": (channels,) for part in kept}
    weights = random_weights(weights)
    for key in [key for key in weights if key.endswith("running_var")]:
        weights[key] = weights[key].abs() + 0.5
        weights[key.replace("running_var", "num_batches_tracked")] = torch.tensor(9)
    return weights


PARAMETERS = (
    "weight", "bias", "weight_g", "weight_v", "grep_a", "extra_tokens", "positions",
    "running_mean", "running_var",
)  # fmt: skip


def random_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A name that is no parameter's is a linear layer or a norm, hence weight and bias."""
    generator = torch.Generator().manual_seed(7)
    weights = {}
    for name, shape in shapes.items():
        whole = name.endswith(PARAMETERS)
        fan_in = max(torch.Size(shape[1:]).numel(), 1)
        values = torch.randn(shape, generator=generator) * (1.5 / fan_in**0.5)
        weights[name if whole else f"{name}.weight"] = values
        if not whole:
            weights[f"{name}.bias"] = torch.randn(shape[0], generator=generator)
    return weights


def save_beats(folder: Path) -> Path:
    path = folder / "BEATs_tiny.pt"
    torch.save({"cfg": BEATS_CFG, "model": beats_weights()}, path)
    return path


def save_eat(folder: Path) -> Path:
    (folder / "config.json").write_text(json.dumps(EAT_CONFIG))
    save_file(eat_weights(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def save_ecapa(folder: Path) -> Path:
    torch.save(ecapa_weights(), folder / "embedding_model.ckpt")
    return folder / "embedding_model.ckpt"


# What transformers has no model of is saved as its authors save it.
OWN_LAYOUT = {"beats": save_beats, "eat": save_eat, "ecapa": save_ecapa}

# case: (family, model, conf)
CASES = {
    "whisper": ("whisper", whisper, {}),
    "whisper_unpadded": ("whisper", whisper, {"pad_to_30s": False}),
    "whisper_v3": ("whisper", lambda: whisper(mels=128), {"pad_to_30s": False, "tail_s": 0.0}),
    "wav2vec2_base": ("wav2vec2", lambda: Wav2Vec2ForCTC(Wav2Vec2Config(**SSL_SHAPE)), {}),
    "wav2vec2_large": ("wav2vec2", lambda: Wav2Vec2Model(Wav2Vec2Config(**SSL_SHAPE, **LARGE)), {}),
    "hubert": ("hubert", lambda: HubertModel(HubertConfig(**SSL_SHAPE)), {}),
    "hubert_large": ("hubert", lambda: HubertModel(HubertConfig(**SSL_SHAPE, **LARGE)), {}),
    "wavlm": ("wavlm", lambda: WavLMModel(WavLMConfig(**SSL_SHAPE)), {"normalize": False}),
    "wavlm_large": ("wavlm", lambda: WavLMModel(WavLMConfig(**SSL_SHAPE, **WAVLM_LARGE)), {}),
    "moonshine": ("moonshine", moonshine, {}),
    "wakehubert": ("wakehubert", wakehubert, {}),
    "beats": ("beats", None, {}),
    "eat": ("eat", None, {}),
    "ecapa": ("ecapa", None, {}),
    "yamnet": ("yamnet", yamnet, {}),
    "resemblyzer": ("resemblyzer", resemblyzer, {}),
    "resemblyzer_whole": ("resemblyzer", resemblyzer, {"window_frames": None}),
}


def save_tiny(case: str, folder: Path) -> dict:
    """Save the case's checkpoint into `folder`; returns the encoder's spec."""
    family, make, conf = CASES[case]
    if family in OWN_LAYOUT:
        return {"family": family, "path": str(OWN_LAYOUT[family](folder)), "conf": conf}
    torch.manual_seed(7)
    model = make().eval()
    for parameter in model.parameters():  # initialisations near zero would hide mistakes
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    model.save_pretrained(folder)
    if family in ("wav2vec2", "hubert", "wavlm"):
        Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return {"family": family, "path": str(folder), "conf": conf}
