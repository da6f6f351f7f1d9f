"""YAMNet (github.com/tensorflow/models, research/audioset/yamnet): sounds, twice a second.

`path` is a folder with config.json and model.safetensors: `cache:yamnet`, which
tools/fetch_models.py makes of a TensorFlow Lite graph (batch norms folded, ReLU6, as MediaPipe has
it). A MobileNet v1 reads a patch of log-mel spectrum, 0.975 s of audio, every 0.48 s; the classes
of AudioSet after it are left out.

Native frame j is of the samples [7680 j, 7680 (j + 1)). Its patch has that stretch in its middle,
3960 samples before it and 3960 after it, with silence where there is no clip. So a patch covers
audio up to 0.25 s before and after its frame, every sample is in a patch, and a clip of any length
has a frame.
"""

# B batch, N samples, J native frames, P patches (B J), F windows, M mel bands, S states, D width

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from pam.encoders import AudioEncoder, Dtype
from pam.encoders.loading import load_pretrained
from pam.rate import SAMPLE_RATE

WINDOW_SAMPLES = 400
MEL_HOP_SAMPLES = 160
FFT_SAMPLES = 512
MEL_BANDS = 64
LOWEST_HZ, HIGHEST_HZ = 125.0, 7500.0
LOG_OFFSET = 0.001
PATCH_WINDOWS = 96
PATCH_SAMPLES = (PATCH_WINDOWS - 1) * MEL_HOP_SAMPLES + WINDOW_SAMPLES  # 15600
STEP_SAMPLES = PATCH_WINDOWS // 2 * MEL_HOP_SAMPLES  # 7680, 480 ms
LEAD_SAMPLES = (PATCH_SAMPLES - STEP_SAMPLES) // 2  # 3960


class YamnetConfig(PreTrainedConfig):
    """channels, strides: of the first convolution, then of every block."""

    model_type = "yamnet"

    channels: list[int] | tuple[int, ...] = (
        32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024,
    )  # fmt: skip
    strides: list[int] | tuple[int, ...] = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


class SameConv(nn.Conv2d):
    """TensorFlow's padding `SAME`, then ReLU6: an odd zero lies below and to the right."""

    def forward(self, x: Float[Tensor, "P C h w"]) -> Float[Tensor, "P D k l"]:
        sides = [self._sides(x.shape[axis], axis - 2) for axis in (3, 2)]  # F.pad: last axis first
        return F.relu6(super().forward(F.pad(x, (*sides[0], *sides[1]))))

    def _sides(self, size: int, axis: int) -> tuple[int, int]:
        stride = self.stride[axis]
        zeros = max((-(-size // stride) - 1) * stride + self.kernel_size[axis] - size, 0)
        return zeros // 2, zeros - zeros // 2


class YamnetBlock(nn.Module):
    """A filter for each channel, then a mixture of the channels."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.depthwise = SameConv(channels_in, channels_in, 3, stride, groups=channels_in)
        self.pointwise = SameConv(channels_in, channels, 1)

    def forward(self, x: Float[Tensor, "P C h w"]) -> Float[Tensor, "P D k l"]:
        return self.pointwise(self.depthwise(x))


class YamnetModel(PreTrainedModel):
    """Patches to the outputs of the last blocks, as many as have one width: their means over the
    patch. The very last of them is what YAMNet calls its embedding."""

    config_class = YamnetConfig
    main_input_name = "patches"

    def __init__(self, config: YamnetConfig):
        super().__init__(config)
        channels, strides = config.channels, config.strides
        self.stem = SameConv(1, channels[0], 3, strides[0])
        shapes = zip(channels[:-1], channels[1:], strides[1:], strict=True)
        self.blocks = nn.ModuleList(YamnetBlock(*shape) for shape in shapes)
        self.post_init()

    def forward(self, patches: Float[Tensor, "P F M"]) -> list[Float[Tensor, "P D"]]:
        x, width = self.stem(patches[:, None]), self.config.channels[-1]
        states = []
        for block in self.blocks:
            x = block(x)
            if x.shape[1] == width:
                states.append(x.mean(dim=(2, 3)))
        return states


class YamnetEncoder(AudioEncoder):
    """The states are those of YAMNet's last two blocks, layers 13 and 14: only they have 1024
    channels, and the states of an encoder must share one width."""

    hop_samples = STEP_SAMPLES
    models: ClassVar = {"cache:yamnet": (1024, 2)}

    def __init__(self, path: str, dtype: Dtype = "float32"):
        super().__init__(dtype)
        self.model = load_pretrained(YamnetModel, path, dtype=self.dtype)
        channels = self.model.config.channels
        self.dim = channels[-1]
        self.num_states = list(channels[1:]).count(self.dim)
        with torch.device("cpu"):  # even of a model without weights, on the meta device
            self.register_buffer("filters", mel_filters())
        self.freeze()

    def native_length(self, samples: int) -> int:
        return -(-samples // STEP_SAMPLES)

    def encode(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S J D"]:
        patches_BJFM = self.patches(audio).to(self.dtype)
        states_PSD = torch.stack(self.model(patches_BJFM.flatten(0, 1)), dim=1)
        return states_PSD.unflatten(0, patches_BJFM.shape[:2]).transpose(1, 2)

    def patches(self, audio: Float[Tensor, "B N"]) -> Float[Tensor, "B J F M"]:
        """Of clips that silence follows; neighbours share half of their windows."""
        frames = self.native_length(audio.shape[1])
        end = (frames - 1) * STEP_SAMPLES + PATCH_SAMPLES
        padded = F.pad(audio, (LEAD_SAMPLES, end - LEAD_SAMPLES - audio.shape[1]))
        mel_BFM = self.log_mel(padded)
        return mel_BFM.unfold(1, PATCH_WINDOWS, PATCH_WINDOWS // 2).transpose(2, 3)

    def log_mel(self, audio: Float[Tensor, "B N"]) -> Float[Tensor, "B F M"]:
        """Of the windows that lie in `audio` as a whole."""
        window = torch.hann_window(WINDOW_SAMPLES, device=audio.device)
        windows = audio.unfold(1, WINDOW_SAMPLES, MEL_HOP_SAMPLES) * window
        magnitude = torch.fft.rfft(windows, FFT_SAMPLES).abs()
        return torch.log(magnitude @ self.filters.T + LOG_OFFSET)


def mel_filters() -> Float[Tensor, "M bins"]:
    """Triangles of height 1 over HTK's mel scale (not over Hz)."""
    hz = torch.linspace(0, SAMPLE_RATE / 2, FFT_SAMPLES // 2 + 1, dtype=torch.float64)
    lowest, highest = mel(torch.tensor([LOWEST_HZ, HIGHEST_HZ], dtype=torch.float64)).tolist()
    edges = torch.linspace(lowest, highest, MEL_BANDS + 2, dtype=torch.float64)
    step = (highest - lowest) / (MEL_BANDS + 1)
    return (1 - (mel(hz) - edges[1:-1, None]).abs() / step).clamp(min=0).float()


def mel(hz: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    return 1127 * (hz / 700).log1p()
