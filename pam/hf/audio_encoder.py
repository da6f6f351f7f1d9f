"""From audio to features for the LLM: the frozen encoders and the fusion (equations 2 to 6)."""

# B batch, N samples, U features, D width of the LLM, R routed experts

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.encoders import ENCODERS, AudioEncoder
from pam.encoders.loading import without_weights
from pam.errors import PamError
from pam.fusion import build_fusion
from pam.hf.configuration_pam import PaMConfig
from pam.model.features import EncoderShape, encode, read_states, scale
from pam.rate import SAMPLE_RATE


class PaMAudioEncoder(nn.Module):
    """All encoders of a model and its fusion, without pretrained weights."""

    def __init__(self, config: PaMConfig):
        super().__init__()
        self.shapes = [EncoderShape(s["name"], s["dim"], s["num_states"]) for s in config.encoders]
        # Before the encoders: a model's dtype is that of its first weights, and that of audio.
        self.fusion = build_fusion(
            config.fusion,
            dims=[shape.dim for shape in self.shapes],
            states=[shape.num_states for shape in self.shapes],
            width=config.width,
            num_experts=len(config.experts),
            conf=config.fusion_conf,
        ).float()
        self.encoders = nn.ModuleDict({s["name"]: shape_of(s) for s in config.encoders})
        self.embedding_norm, self.bf16 = config.embedding_norm, config.bf16
        scaled = config.embedding_norm is not None
        self.gain = nn.Parameter(torch.ones((), dtype=torch.float32)) if scaled else None

    def forward(
        self,
        audio: Float[Tensor, "B N"],
        lengths: Int[Tensor, " B"],
        gate: Float[Tensor, "B R"] | None,
    ) -> tuple[Float[Tensor, "B U D"], Int[Tensor, " B"]]:
        """The features S of equation 3, and each clip's number of them; `lengths` are samples."""
        states, frames = read_states(encode(self.encoders, audio, lengths), self.shapes, self.bf16)
        features = scale(self.fusion(states, frames, gate), self.gain, self.embedding_norm)
        return features, self.fusion.output_lengths(frames)

    def output_lengths(self, samples: Sequence[int]) -> list[int]:
        """Number of features of clips of `samples`. `PamError` for a clip that is too short."""
        frames = [min(e.output_length(n) for e in self.encoders.values()) for n in samples]
        for count, length in zip(frames, samples, strict=True):
            if count < 1:
                raise PamError(f"a clip of {length / SAMPLE_RATE:.3f} s is too short to be encoded")
        return self.fusion.output_lengths(torch.tensor(frames)).tolist()


def shape_of(spec: Mapping[str, Any]) -> AudioEncoder:
    """An encoder whose weights come later."""
    with without_weights(spec["config"]):
        return ENCODERS.get(spec["family"])(spec["name"], **spec["conf"])
