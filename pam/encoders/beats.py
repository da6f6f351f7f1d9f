r"""BEATs (Chen et al. 2022, arXiv:2212.09058): a transformer on patches, 6.25 steps a second.

`path` is an original checkpoint (`BEATs_iter3_plus_AS2M.pt` and its kin: `cfg` and `model`) or a
folder with config.json and model.safetensors, which `load_encoder(…).model.save_pretrained(folder)`
writes. The classifier of fine-tuned models is left out.

Layers are post-norm with DeepNorm's residual scale (Wang et al. 2022, arXiv:2203.00555),

.. math:: x \leftarrow \mathrm{LN}(\alpha x + f(x)), \qquad \alpha = (2 L)^{1/4},

and attend with a bias :math:`g_i b_{j-i}` on the distance between patches i and j of the sequence:
:math:`b` is shared by all layers, the gate :math:`g_i` depends on the query at i.
"""

# B batch, N samples, F windows, M mel bands, P patches, H heads, C width of a head, D width

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import PreTrainedConfig, PreTrainedModel

from pam.encoders import Dtype
from pam.encoders.loading import load_pretrained, read_original, require
from pam.encoders.padding import attention_bias
from pam.encoders.patches import PATCH, PatchEncoder, log_mel

INT16_SCALE = 2**15
MEAN, STD = 15.41663, 6.55582  # of AudioSet
GATE_WIDTH = 4
SUPPORTED = {
    "input_patch_size": PATCH,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
}


class BeatsConfig(PreTrainedConfig):
    """Names are those of the original `cfg`, values those of the published models."""

    model_type = "beats"

    input_patch_size: int = PATCH
    embed_dim: int = 512
    conv_bias: bool = False
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    activation_fn: str = "gelu"
    layer_norm_first: bool = False
    deep_norm: bool = True
    conv_pos: int = 128
    conv_pos_groups: int = 16
    relative_position_embedding: bool = True
    num_buckets: int = 320
    max_distance: int = 800
    gru_rel_pos: bool = True


class BeatsModel(PreTrainedModel):
    """Patches of a normalised spectrogram to the states before and after every layer."""

    config_class = BeatsConfig
    main_input_name = "spectrum"

    def __init__(self, config: BeatsConfig):
        super().__init__(config)
        patch, width = config.embed_dim, config.encoder_embed_dim
        self.patch_embedding = nn.Conv2d(1, patch, PATCH, stride=PATCH, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(patch)
        self.post_extract_proj = nn.Linear(patch, width) if patch != width else nn.Identity()
        self.encoder = BeatsTransformer(config)
        self.post_init()

    def forward(
        self, spectrum: Float[Tensor, "B F M"], real_BP: Bool[Tensor, "B P"]
    ) -> list[Float[Tensor, "B P D"]]:
        x = self.patch_embedding(spectrum[:, None]).flatten(2).transpose(1, 2)
        x = self.post_extract_proj(self.layer_norm(x))
        return self.encoder(x, real_BP)


class BeatsTransformer(nn.Module):
    def __init__(self, config: BeatsConfig):
        super().__init__()
        width, kernel = config.encoder_embed_dim, config.conv_pos
        conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.conv_pos_groups)
        self.pos_conv = nn.Sequential(weight_norm(conv, dim=2))
        self.layer_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            BeatsLayer(config, has_table=i == 0) for i in range(config.encoder_layers)
        )

    def forward(
        self, x: Float[Tensor, "B P D"], real_BP: Bool[Tensor, "B P"]
    ) -> list[Float[Tensor, "B P D"]]:
        x = x * real_BP[:, :, None]  # padding is what the convolution sees beyond a lone clip
        around = F.gelu(self.pos_conv(x.transpose(1, 2))).transpose(1, 2)
        patches = x.shape[1]  # one less than `around` where the kernel is even
        states = [self.layer_norm(x + around[:, :patches])]
        bias_HPP = self.layers[0].self_attn.relative_attention_bias.by_distance(patches)
        padding = attention_bias(real_BP, x.dtype)
        for layer in self.layers:
            states.append(layer(states[-1], bias_HPP, padding))
        return states


class BeatsLayer(nn.Module):
    def __init__(self, config: BeatsConfig, has_table: bool):
        super().__init__()
        width = config.encoder_embed_dim
        self.self_attn = BeatsAttention(config, has_table)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.alpha = (2 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0

    def forward(
        self, x: Float[Tensor, "B P D"], bias_HPP: Float[Tensor, "H P P"], padding: Tensor | None
    ) -> Float[Tensor, "B P D"]:
        x = self.self_attn_layer_norm(self.alpha * x + self.self_attn(x, bias_HPP, padding))
        return self.final_layer_norm(self.alpha * x + self.fc2(F.gelu(self.fc1(x))))


class BeatsAttention(nn.Module):
    def __init__(self, config: BeatsConfig, has_table: bool):
        super().__init__()
        width, self.heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(width, width) for _ in range(4)
        )
        self.grep_linear = nn.Linear(width // self.heads, 2 * GATE_WIDTH)
        self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))
        if has_table:
            self.relative_attention_bias = DistanceTable(config)

    def forward(
        self, x: Float[Tensor, "B P D"], bias_HPP: Float[Tensor, "H P P"], padding: Tensor | None
    ) -> Float[Tensor, "B P D"]:
        q, k, v = (
            proj(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        bias = self.gate(q) * bias_HPP
        if padding is not None:
            bias = bias + padding
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def gate(self, q: Float[Tensor, "B H P C"]) -> Float[Tensor, "B H P 1"]:
        """The weight of the distance for each query, as in WavLM (arXiv:2110.13900, eq. 3)."""
        sums = self.grep_linear(q).unflatten(3, (2, GATE_WIDTH)).sum(dim=4)
        update, reset = sums.sigmoid().chunk(2, dim=3)
        return update * (reset * self.grep_a - 1) + 2


class DistanceTable(nn.Embedding):
    """One number per head and bucket of distances; far distances share buckets, as in T5."""

    def __init__(self, config: BeatsConfig):
        super().__init__(config.num_buckets, config.encoder_attention_heads)
        self.one_way, self.max_distance = config.num_buckets // 2, config.max_distance

    def by_distance(self, patches: int) -> Float[Tensor, "H P P"]:
        at = torch.arange(patches, device=self.weight.device)
        return self(self.bucket(at[None] - at[:, None])).permute(2, 0, 1)

    def bucket(self, distance: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Half of the buckets for each direction; half of those exact, the rest logarithmic."""
        exact, far = self.one_way // 2, distance.abs()
        share = (far.clamp(min=exact) / exact).log() / math.log(self.max_distance / exact)
        coarse = exact + (share * (self.one_way - exact)).long()
        bucket = torch.where(far < exact, far, coarse.clamp(max=self.one_way - 1))
        return bucket + self.one_way * (distance > 0)


class BeatsEncoder(PatchEncoder):
    """State 0 is the input of the first layer (patches plus positions, after a layer norm). Every
    other state is the output of a layer, which is normalised because layers are post-norm."""

    models: ClassVar = {"BEATs_iter3_plus_AS2M.pt": (768, 13)}

    def __init__(self, path: str, dtype: Dtype = "float32"):
        super().__init__(dtype)
        original = None
        if path.endswith(".pt"):
            cfg, weights = read_original(path)
            original = BeatsConfig(**cfg), weights
        self.model = load_pretrained(
            BeatsModel,
            path,
            dtype=self.dtype,
            # The originals repeat the table of layer 0, which all layers share, in every layer.
            foreign=[r"^predictor\.", r"\.[1-9]\d*\.self_attn\.relative_attention_bias\."],
            original=original,
        )
        config = self.model.config
        require(path, config, SUPPORTED)
        self.dim = config.encoder_embed_dim
        self.num_states = config.encoder_layers + 1
        self.freeze()

    def spectrum(
        self, audio: Float[Tensor, "B N"], real_BF: Bool[Tensor, "B F"]
    ) -> Float[Tensor, "B F M"]:
        mel_BFM = log_mel(INT16_SCALE * audio, real_BF.shape[1], shape="povey")
        return (mel_BFM - MEAN) / (2 * STD)
