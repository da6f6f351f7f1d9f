"""WakeHuBERT: a causal convolutional student of HuBERT, 50 frames a second, and its encoder.

Log-mel spectra go through a strided stem and residual depthwise-separable blocks. The released
student ends in a linear map to 128 features that imitate its teacher. That head is left out: the
hidden states of one encoder must share one width, and any pre-fusion adapter can learn a linear map
of the last state again.
"""

# B batch, N samples, F mel frames, T frames, C channels, S states

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from pam.device import without_tf32
from pam.encoders import AudioEncoder
from pam.encoders.loading import load_pretrained

FFT_SAMPLES = 400
MEL_HOP_SAMPLES = 160
STEM_STRIDE = 2
LOG_FLOOR = 1e-6


class WakeHubertConfig(PreTrainedConfig):
    """Shape of the network; `delay_frames` says how far (50 Hz) its features lag the audio."""

    model_type = "wakehubert"

    channels: int = 256
    num_mels: int = 64
    stem_kernel: int = 4
    block_kernel: int = 5
    dilations: list[int] | None = None
    delay_frames: int = 0


class CausalConv(nn.Conv1d):
    """A convolution that sees no future: all of its padding lies to the left."""

    def forward(self, x: Tensor) -> Tensor:
        reach = (self.kernel_size[0] - 1) * self.dilation[0] + 1
        return super().forward(F.pad(x, (reach - self.stride[0], 0)))


class WakeHubertBlock(nn.Module):
    """x ← relu(x + pointwise(relu(depthwise(x))))."""

    def __init__(self, channels: int, kernel: int, dilation: int):
        super().__init__()
        self.dw = CausalConv(channels, channels, kernel, dilation=dilation, groups=channels)
        self.pw = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.pw(F.relu(self.dw(x))))


class WakeHubertModel(PreTrainedModel):
    """Waveform to the states after the stem and after each block."""

    config_class = WakeHubertConfig
    main_input_name = "audio"

    def __init__(self, config: WakeHubertConfig):
        super().__init__(config)
        bins = FFT_SAMPLES // 2 + 1
        self.register_buffer("basis", torch.zeros(2 * bins, 1, FFT_SAMPLES))
        self.register_buffer("mel", torch.zeros(config.num_mels, bins))
        self.norm = nn.BatchNorm1d(config.num_mels)
        self.stem = CausalConv(
            config.num_mels, config.channels, config.stem_kernel, stride=STEM_STRIDE
        )
        self.blocks = nn.ModuleList(
            WakeHubertBlock(config.channels, config.block_kernel, dilation)
            for dilation in config.dilations or [1, 2, 4, 8, 1, 2, 4, 8]
        )
        self.post_init()

    @without_tf32()  # its rounding would be louder than what is quiet
    def log_mel(self, audio: Float[Tensor, "B N"]) -> Float[Tensor, "B M F"]:
        padded = F.pad(audio[:, None], (FFT_SAMPLES - MEL_HOP_SAMPLES, 0))
        real, imaginary = F.conv1d(padded, self.basis, stride=MEL_HOP_SAMPLES).chunk(2, dim=1)
        return torch.log(self.mel @ (real**2 + imaginary**2) + LOG_FLOOR)

    def forward(self, audio: Float[Tensor, "B N"]) -> list[Float[Tensor, "B C T"]]:
        states = [F.relu(self.stem(self.norm(self.log_mel(audio))))]
        for block in self.blocks:
            states.append(block(states[-1]))
        return states


class WakeHubertEncoder(AudioEncoder):
    """WakeHuBERT under the encoder contract.

    The student answers `delay_frames` late (it was trained with that much look-ahead), so the
    audio is followed by as much silence and the first frames are dropped: frame t then speaks of
    the same moment as frame t of every other encoder.
    """

    hop_samples = MEL_HOP_SAMPLES * STEM_STRIDE
    models: ClassVar = {"cache:wakehubert-tiny": (256, 9)}

    def __init__(self, path: str):
        super().__init__()  # no other dtype: the model makes its own spectrum
        self.model = load_pretrained(WakeHubertModel, path, dtype=self.dtype)
        self.dim = self.model.config.channels
        self.num_states = 1 + len(self.model.blocks)
        self.freeze()

    def native_length(self, samples: int) -> int:
        return samples // MEL_HOP_SAMPLES // STEM_STRIDE

    def encode(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S F C"]:
        delay = self.model.config.delay_frames
        states = self.model(F.pad(audio, (0, delay * self.hop_samples)))
        return torch.stack(states, dim=1).transpose(2, 3)[:, :, delay:]
