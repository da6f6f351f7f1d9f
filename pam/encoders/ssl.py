"""Self-supervised encoders of transformers: wav2vec 2.0, HuBERT, WavLM; 50 frames a second."""

# B batch, N samples, J native frames, C channels of the front end, S states, D width

import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import HubertModel, Wav2Vec2Model, WavLMModel
from transformers.utils import cached_file

from pam.encoders import AudioEncoder, Dtype
from pam.encoders.loading import load_pretrained
from pam.encoders.padding import by_length, padding_mask
from pam.errors import PamError
from pam.paths import resolve_model

NORM_EPSILON = 1e-7
# WavLM in transformers gives torch a boolean mask and a float position bias; both are right.
warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask", UserWarning)


class SelfSupervisedEncoder(AudioEncoder):
    """State 0 is what enters the first layer (front end plus positions); the last state is after
    the final layer norm where the model has one (the large, "stable" models).

    Args:
        normalize: give each clip zero mean and unit variance over its real samples; null: as the
            checkpoint's preprocessor_config.json says.
    """

    hop_samples = 320
    model_class: type[nn.Module]

    def __init__(self, path: str, dtype: Dtype = "float32", normalize: bool | None = None):
        super().__init__(dtype)
        self.model = load_pretrained(
            self.model_class,
            path,
            dtype=self.dtype,
            # Only SpecAugment reads masked_spec_embed, and a frozen encoder never masks.
            optional=["masked_spec_embed"],
            foreign=[r"^(lm_head|project_hid|project_q|quantizer|projector|classifier)\b"],
        )
        if getattr(self.model, "adapter", None) is not None:
            raise PamError(f"model {path!r} has an adapter (add_adapter): not supported")
        config = self.model.config
        self.front_end_shape = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        if math.prod(config.conv_stride) != self.hop_samples:
            raise PamError(
                f"model {path!r}: its convolutions stride {math.prod(config.conv_stride)} samples, "
                f"those of its family {self.hop_samples}: not supported"
            )
        self.dim = config.hidden_size
        self.num_states = config.num_hidden_layers + 1
        self.normalize = _read_do_normalize(path) if normalize is None else normalize
        self.freeze()

    def native_length(self, samples: int) -> int:
        for kernel, stride in self.front_end_shape:
            samples = max((samples - kernel) // stride + 1, 0)
        return samples

    def encode(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S J D"]:
        if self.normalize:
            audio = normalized(audio, lengths)
        audio = audio.to(self.dtype)
        if self.model.config.feat_extract_norm == "group":
            # The first convolution is normalised over time: padding would change every frame.
            features = by_length(self._front_end, audio, lengths)
        else:
            features = self._front_end(audio)
        projected = self.model.feature_projection(features)
        x = projected[0] if isinstance(projected, tuple) else projected
        native = [self.native_length(n) for n in lengths.tolist()]
        real_BJ = padding_mask(native, x.shape[1], x.device)
        with layer_states(self.model.encoder.layers) as states:
            out = self.model.encoder(x, attention_mask=None if real_BJ.all() else real_BJ)
        states[-1] = out.last_hidden_state
        return torch.stack(states, dim=1)

    def _front_end(self, audio: Float[Tensor, "B N"]) -> Float[Tensor, "B J C"]:
        return self.model.feature_extractor(audio).transpose(1, 2)


class Wav2Vec2Encoder(SelfSupervisedEncoder):
    model_class = Wav2Vec2Model
    models: ClassVar = {
        "facebook/wav2vec2-base-960h": (768, 13),
        "facebook/wav2vec2-large-960h": (1024, 25),
    }


class HubertEncoder(SelfSupervisedEncoder):
    model_class = HubertModel
    models: ClassVar = {
        "facebook/hubert-base-ls960": (768, 13),
        "facebook/hubert-large-ll60k": (1024, 25),
    }


class WavLMEncoder(SelfSupervisedEncoder):
    model_class = WavLMModel
    models: ClassVar = {
        "microsoft/wavlm-base-plus": (768, 13),
        "microsoft/wavlm-large": (1024, 25),
    }


def normalized(audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B N"]:
    """Zero mean and unit variance over each clip's real samples; the padding is zero."""
    real = torch.arange(audio.shape[1], device=audio.device) < lengths[:, None]
    count = lengths[:, None].to(audio.dtype)
    centred = torch.where(real, audio - audio.sum(1, keepdim=True) / count, 0)
    variance = centred.square().sum(1, keepdim=True) / count
    return centred / (variance + NORM_EPSILON).sqrt()


@contextmanager
def layer_states(layers: nn.ModuleList) -> Iterator[list[Tensor]]:
    """Collect what enters the first layer and what leaves every layer."""
    states: list[Tensor] = []

    def entered(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        states.append(args[0])

    def left(module: nn.Module, args: tuple[Tensor, ...], out: Tensor | tuple[Tensor, ...]) -> None:
        states.append(out[0] if isinstance(out, tuple) else out)

    hooks = [layers[0].register_forward_pre_hook(entered)]
    hooks += [layer.register_forward_hook(left) for layer in layers]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def _read_do_normalize(path: str) -> bool:
    file = cached_file(
        resolve_model(path), "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
    )
    if file is None:
        raise PamError(
            f"model {path!r} has no preprocessor_config.json, so whether it expects normalised "
            "audio is unknown: set the encoder's conf to {normalize: true} or {normalize: false}"
        )
    return bool(json.loads(Path(file).read_text(encoding="utf-8")).get("do_normalize", True))
