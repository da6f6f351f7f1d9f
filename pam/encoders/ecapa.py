"""ECAPA-TDNN (Desplanques et al. 2020, arXiv:2005.07143): a speaker encoder, 100 frames a second.

`path` is SpeechBrain's `embedding_model.ckpt` (of speechbrain/spkrec-ecapa-voxceleb, say), or a
folder with config.json and model.safetensors: `cache:ecapa-voxceleb`, which tools/fetch_models.py
makes of that file. Only the convolutional blocks are used: their frames say who speaks when. The
pooling over time and the speaker embedding after them have no frames and are left out.
"""

# B batch, N samples, M mel bands, F power bins, J frames, S states, D width

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from pam.checkpoint import read_checkpoint
from pam.encoders import AudioEncoder, Dtype
from pam.encoders.loading import load_pretrained
from pam.encoders.padding import by_length
from pam.errors import PamError
from pam.rate import SAMPLE_RATE

FFT_SAMPLES = 400
MEL_HOP_SAMPLES = 160
POWER_FLOOR = 1e-10
DYNAMIC_RANGE = 80.0  # decibels: what lies further below the loudest band is raised to there


class EcapaConfig(PreTrainedConfig):
    """The first block is a TDNN layer, the others are SE-Res2Net blocks."""

    model_type = "ecapa"

    num_mels: int = 80
    channels: int = 1024
    kernel_sizes: list[int] | tuple[int, ...] = (5, 3, 3, 3)
    dilations: list[int] | tuple[int, ...] = (1, 2, 3, 4)
    res2net_scale: int = 8
    se_channels: int = 128


class EcapaModel(PreTrainedModel):
    """Normalised spectra to the output of every block."""

    config_class = EcapaConfig
    main_input_name = "mel"

    def __init__(self, config: EcapaConfig):
        super().__init__(config)
        shapes = zip(config.kernel_sizes, config.dilations, strict=True)
        kernel, dilation = next(shapes)
        first = Tdnn(config.num_mels, config.channels, kernel, dilation)
        blocks = [SeRes2NetBlock(config, kernel, dilation) for kernel, dilation in shapes]
        self.blocks = nn.ModuleList([first, *blocks])
        self.post_init()

    def forward(self, mel: Float[Tensor, "B M J"]) -> list[Float[Tensor, "B D J"]]:
        states, x = [], mel
        for block in self.blocks:
            x = block(x)
            states.append(x)
        return states


class Tdnn(nn.Module):
    def __init__(self, channels_in: int, channels: int, kernel: int, dilation: int = 1):
        super().__init__()
        self.conv = nn.Conv1d(
            channels_in, channels, kernel, dilation=dilation, padding="same", padding_mode="reflect"
        )
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Float[Tensor, "B C J"]) -> Float[Tensor, "B D J"]:
        return self.norm(F.relu(self.conv(x)))


class SeRes2NetBlock(nn.Module):
    """x + gate · f(x), with one gate per channel from the mean over time."""

    def __init__(self, config: EcapaConfig, kernel: int, dilation: int):
        super().__init__()
        width = config.channels
        self.tdnn1 = Tdnn(width, width, 1)
        self.res2net_block = Res2Net(width, config.res2net_scale, kernel, dilation)
        self.tdnn2 = Tdnn(width, width, 1)
        self.se_block = nn.ModuleDict(
            {
                "conv1": nn.Conv1d(width, config.se_channels, 1),
                "conv2": nn.Conv1d(config.se_channels, width, 1),
            }
        )

    def forward(self, x: Float[Tensor, "B D J"]) -> Float[Tensor, "B D J"]:
        out = self.tdnn2(self.res2net_block(self.tdnn1(x)))
        squeezed = F.relu(self.se_block["conv1"](out.mean(dim=2, keepdim=True)))
        return x + self.se_block["conv2"](squeezed).sigmoid() * out


class Res2Net(nn.Module):
    """Groups of channels in a row: each is filtered after the one before it was added to it."""

    def __init__(self, width: int, scale: int, kernel: int, dilation: int):
        super().__init__()
        part = width // scale
        self.scale = scale
        self.blocks = nn.ModuleList(Tdnn(part, part, kernel, dilation) for _ in range(scale - 1))

    def forward(self, x: Float[Tensor, "B D J"]) -> Float[Tensor, "B D J"]:
        first, *parts = x.chunk(self.scale, dim=1)
        outs = [first]
        for i, (block, part) in enumerate(zip(self.blocks, parts, strict=True)):
            outs.append(block(part + outs[-1] if i else part))
        return torch.cat(outs, dim=1)


class EcapaEncoder(AudioEncoder):
    """State 0 is after the first TDNN layer, every other state after an SE-Res2Net block."""

    hop_samples = MEL_HOP_SAMPLES
    models: ClassVar = {"cache:ecapa-voxceleb": (1024, 4)}

    def __init__(self, path: str, dtype: Dtype = "float32"):
        super().__init__(dtype)
        self.model = load_pretrained(
            EcapaModel,
            path,
            dtype=self.dtype,
            foreign=[r"^(mfa|asp|asp_bn|fc)\."],
            original=_read_original(path) if is_original(path) else None,
        )
        config = self.model.config
        self.dim = config.channels
        self.num_states = len(config.kernel_sizes)
        shapes = zip(config.kernel_sizes, config.dilations, strict=True)
        # The convolutions mirror the clip's ends, hence need more frames than they reach.
        self.least_frames = 1 + max((kernel - 1) * dilation // 2 for kernel, dilation in shapes)
        with torch.device("cpu"):  # even of a model without weights, on the meta device
            self.register_buffer("filters", mel_filters(config.num_mels))
        self.freeze()

    def native_length(self, samples: int) -> int:
        frames = samples // MEL_HOP_SAMPLES + 1
        return frames if frames >= self.least_frames else 0

    def encode(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S J D"]:
        """Mirrored ends and means over time: clips of one length at a time."""
        flat = by_length(self._encode_whole, audio, lengths)
        return flat.unflatten(2, (self.num_states, self.dim)).transpose(1, 2)

    def _encode_whole(self, audio: Float[Tensor, "b n"]) -> Float[Tensor, "b j SD"]:
        mel = self.log_mel(audio).to(self.dtype)
        return torch.cat(self.model(mel), dim=1).transpose(1, 2)

    def log_mel(self, audio: Float[Tensor, "B N"]) -> Float[Tensor, "B M J"]:
        """Decibels, minus each band's mean over the clip."""
        window = torch.hamming_window(FFT_SAMPLES, device=audio.device)
        spectrum = torch.stft(
            audio,
            FFT_SAMPLES,
            MEL_HOP_SAMPLES,
            window=window,
            pad_mode="constant",
            return_complex=True,
        )
        power = self.filters @ spectrum.abs().square()
        level = 10 * power.clamp(min=POWER_FLOOR).log10()
        level = torch.maximum(level, level.amax(dim=(1, 2), keepdim=True) - DYNAMIC_RANGE)
        return level - level.mean(dim=2, keepdim=True)


def is_original(path: str) -> bool:
    """Is it a file? Its name does not matter; the reader reports a missing one."""
    return path.endswith(".ckpt") or Path(path).is_file()


def mel_filters(num_mels: int) -> Float[Tensor, "M F"]:
    """Triangles of height 1 that are symmetric in Hz: as wide to the right as to the left."""
    top = 2595 * torch.tensor(1 + SAMPLE_RATE / 2 / 700, dtype=torch.float64).log10()
    mel = torch.linspace(0, 1, num_mels + 2, dtype=torch.float64) * top
    hz = 700 * (10 ** (mel / 2595) - 1)
    bins = torch.linspace(0, SAMPLE_RATE / 2, FFT_SAMPLES // 2 + 1, dtype=torch.float64)
    distance = (bins - hz[1:-1, None]).abs() / hz.diff()[:-1, None]
    return (1 - distance).clamp(min=0).float()


def _read_original(path: str) -> tuple[EcapaConfig, Mapping[str, Tensor]]:
    """SpeechBrain's file holds weights alone; all but the dilations shows in their shapes."""
    weights = read_checkpoint(path)
    if not isinstance(weights, dict) or "blocks.0.conv.conv.weight" not in weights:
        raise PamError(f"model {path!r} holds no 'blocks.0.conv.conv.weight': is it ECAPA-TDNN's?")
    # Every convolution and norm of SpeechBrain lies in a wrapper of the same name.
    wrapper = re.compile(r"\b(conv\d?|norm)\.(conv|norm)\.")
    weights = {wrapper.sub(r"\1.", key): value for key, value in weights.items()}
    channels, num_mels, kernel = weights["blocks.0.conv.weight"].shape
    inner = re.compile(r"blocks\.\d+\.res2net_block\.blocks\.0\.conv\.weight")
    others = [value.shape[2] for key, value in weights.items() if inner.fullmatch(key)]
    parts = [key for key in weights if re.fullmatch(r"blocks\.1\.res2net.*\.conv\.weight", key)]
    config = EcapaConfig(
        num_mels=num_mels,
        channels=channels,
        kernel_sizes=[kernel, *others],
        res2net_scale=len(parts) + 1,
        se_channels=weights["blocks.1.se_block.conv1.weight"].shape[0],
    )
    if len(config.kernel_sizes) != len(config.dilations):
        raise PamError(
            f"model {path!r} has {len(config.kernel_sizes)} blocks, only "
            f"{len(config.dilations)} are supported"
        )
    return config, weights
