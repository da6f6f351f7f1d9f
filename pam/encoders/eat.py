"""EAT (Chen et al. 2024, arXiv:2401.03497): data2vec 2.0 on patches, 6.25 steps a second.

`path` is a folder or hub name in the layout of the authors' Hugging Face port
(`worstchan/EAT-base_epoch30_pretrain`; its code is not needed and never run), or an original
pre-training checkpoint (.pt). Left out: the decoder and the teacher of pre-training, the classifier
of fine-tuned models, and the stored positions, which are sines that are computed here for any
length. The CLS token takes part in attention and is dropped from the states.
"""

# B batch, N samples, F windows, M mel bands, P patches, D width

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from pam.encoders import Dtype
from pam.encoders.loading import load_pretrained, read_original, require
from pam.encoders.padding import attention_bias
from pam.encoders.patches import BANDS, MEL_BANDS, PATCH, PatchEncoder, log_mel
from pam.errors import PamError

MEAN, STD = -4.268, 4.569  # of AudioSet
LONGEST_WAVE = 10_000
SUPPORTED = {
    "patch_size": PATCH,
    "stride": PATCH,
    "mel_bins": MEL_BANDS,
    "layer_norm_first": False,
    "norm_affine": True,
    "qkv_bias": True,
    "fixed_positions": True,
}


class EatConfig(PreTrainedConfig):
    """Names are those of the Hugging Face port, values those of EAT-base."""

    model_type = "eat"

    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-6
    patch_size: int = PATCH
    stride: int = PATCH
    mel_bins: int = MEL_BANDS
    layer_norm_first: bool = False
    norm_affine: bool = True
    qkv_bias: bool = True
    fixed_positions: bool = True


class EatModel(PreTrainedModel):
    """Patches of a normalised spectrogram to the states before and after every block."""

    config_class = EatConfig
    main_input_name = "spectrum"

    def __init__(self, config: EatConfig):
        super().__init__(config)
        width = config.embed_dim
        self.local_encoder = nn.ModuleDict({"proj": nn.Conv2d(1, width, PATCH, stride=PATCH)})
        self.extra_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.pre_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.blocks = nn.ModuleList(EatBlock(config) for _ in range(config.depth))
        self.post_init()

    def forward(
        self, spectrum: Float[Tensor, "B F M"], real_BP: Bool[Tensor, "B P"]
    ) -> list[Float[Tensor, "B P D"]]:
        x = self.local_encoder["proj"](spectrum[:, None]).flatten(2).transpose(1, 2)
        x = x + positions(x.shape[1] // BANDS, x.shape[2]).to(x)
        x = torch.cat([self.extra_tokens.expand(len(x), -1, -1), x], dim=1)
        bias = attention_bias(F.pad(real_BP, (1, 0), value=True), x.dtype)
        states = [self.pre_norm(x)]
        for block in self.blocks:
            states.append(block(states[-1], bias))
        return [state[:, 1:] for state in states]


class EatBlock(nn.Module):
    """Post-norm: x ← LN(x + attention(x)), x ← LN(x + MLP(x))."""

    def __init__(self, config: EatConfig):
        super().__init__()
        width, hidden = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
        self.heads = config.num_heads
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        )
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)

    def forward(self, x: Float[Tensor, "B P D"], bias: Tensor | None) -> Float[Tensor, "B P D"]:
        x = self.norm1(x + self.attend(x, bias))
        return self.norm2(x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](x))))

    def attend(self, x: Float[Tensor, "B P D"], bias: Tensor | None) -> Float[Tensor, "B P D"]:
        qkv = self.attn["qkv"](x).unflatten(2, (3, self.heads, -1))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(dim=2))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.attn["proj"](out.transpose(1, 2).flatten(2))


def positions(steps: int, width: int) -> Float[Tensor, "P D"]:
    """Sines and cosines of the band in the first half of the width, of the time in the second."""
    rate = LONGEST_WAVE ** -(torch.arange(width // 4, dtype=torch.float64) * 4 / width)
    band = torch.arange(BANDS).repeat(steps)[:, None] * rate
    step = torch.arange(steps).repeat_interleave(BANDS)[:, None] * rate
    return torch.cat([band.sin(), band.cos(), step.sin(), step.cos()], dim=1).float()


class EatEncoder(PatchEncoder):
    """State 0 is the input of the first block (patches plus positions, after a layer norm). Every
    other state is the output of a block, which is normalised because blocks are post-norm."""

    models: ClassVar = {"worstchan/EAT-base_epoch30_pretrain": (768, 13)}

    def __init__(self, path: str, dtype: Dtype = "float32"):
        super().__init__(dtype)
        self.model = load_pretrained(
            EatModel,
            path,
            dtype=self.dtype,
            key_mapping={r"^model\.": ""},
            foreign=[
                r"^fixed_positional_encoder\.",
                r"^(decoder|fc_norm|head|recon_proj|cls_proj|center)\b",
            ],
            original=_read_original(path) if path.endswith(".pt") else None,
        )
        config = self.model.config
        require(path, config, SUPPORTED)
        self.dim = config.embed_dim
        self.num_states = config.depth + 1
        self.freeze()

    def spectrum(
        self, audio: Float[Tensor, "B N"], real_BF: Bool[Tensor, "B F"]
    ) -> Float[Tensor, "B F M"]:
        # The original first subtracts the clip's mean; Kaldi subtracts that of every window anyway.
        mel_BFM = log_mel(audio, real_BF.shape[1], shape="hanning")
        # Windows past the clip's end are 0 before normalisation, as in training.
        return (mel_BFM * real_BF[:, :, None] - MEAN) / (2 * STD)


def _read_original(path: str) -> tuple[EatConfig, dict[str, Tensor]]:
    """fairseq's layout: the options are under cfg/model, the patches under one modality."""
    cfg, model = read_original(path)
    names = ["embed_dim", "depth", "num_heads", "mlp_ratio", "norm_eps", "layer_norm_first"]
    try:
        config = EatConfig(**{name: cfg["model"][name] for name in names})
    except (KeyError, TypeError) as error:
        raise PamError(
            f"model {path!r}: its cfg does not describe EAT ({error} is missing): is it a "
            "pre-training checkpoint?"
        ) from error
    renamed = {}
    for key, value in model.items():
        if key == "_ema":  # the teacher of pre-training
            continue
        key = key.replace("modality_encoders.IMAGE.", "", 1)
        renamed[key.replace("context_encoder.norm.", "pre_norm.", 1)] = value
    return config, renamed
