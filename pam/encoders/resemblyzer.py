"""Resemblyzer (github.com/resemble-ai/Resemblyzer): voices; GE2E (Wan et al., arXiv:1710.10467).

`path` is a folder with config.json and model.safetensors: `cache:resemblyzer`, which
tools/fetch_models.py makes of `pretrained.pt`. Three LSTM layers read 40 mel bands (power, not its
logarithm) every 10 ms; a linear layer, ReLU and the L2 norm make the speaker embedding of the last
state. The states are those of the LSTM layers, then the embedding as if the clip ended at each
frame: only there did GE2E ask for equal vectors of one voice and different ones of two.

An LSTM that reads a clip from end to end keeps the first voice: GE2E trained it on windows of 1.6 s
of one person, so it learned to remember and never to forget. Here it starts anew in every window of
`window_frames`. Windows overlap by half, and the second half of each gives the states, so a state
has read between half a window and a window. Its frame is a quarter of a window earlier than what it
read last, hence near the middle of what it describes. `window_frames: null` is one pass over the
clip, without look-ahead.

How well the voices of the mini corpus are separated (`tools/bench_voices.py`; area under the ROC
curve; segments of 1.0 to 1.5 s):

    window_frames                  null   40    80    120   160
    snv_dev, last LSTM layer      0.574 0.850 0.859 0.855 0.846
    snv_dev, embedding            0.572 0.877 0.884 0.876 0.866
    snv_test, last LSTM layer     0.592       0.931       0.940
    snv_test, embedding           0.586       0.944       0.937

As the original does, a clip that is quieter than -30 dBFS is made as loud as that. The original
also cuts pauses out, which would move frames; here they stay.
"""

# B batch, N samples, J native frames, F mel frames, M mel bands, W frames of a window, K windows,
# S states, D width

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from pam.encoders import AudioEncoder, Dtype
from pam.encoders.loading import load_pretrained
from pam.errors import PamError
from pam.rate import SAMPLE_RATE

FFT_SAMPLES = 400
MEL_HOP_SAMPLES = 160
LEAST_RMS = 10 ** (-30 / 20)  # -30 dBFS


class ResemblyzerConfig(PreTrainedConfig):
    model_type = "resemblyzer"

    num_mels: int = 40
    hidden_size: int = 256
    num_layers: int = 3


class ResemblyzerModel(PreTrainedModel):
    """Mel spectra to the state of every LSTM layer and, last, the embedding at every frame."""

    config_class = ResemblyzerConfig
    main_input_name = "mel"

    def __init__(self, config: ResemblyzerConfig):
        super().__init__(config)
        width = config.hidden_size
        inputs = [config.num_mels, *[width] * (config.num_layers - 1)]
        self.layers = nn.ModuleList(nn.LSTM(size, width, batch_first=True) for size in inputs)
        self.linear = nn.Linear(width, width)
        self.post_init()

    def forward(self, mel: Float[Tensor, "B W M"]) -> list[Float[Tensor, "B W D"]]:
        states, x = [], mel
        for layer in self.layers:
            x, _ = layer(x)
            states.append(x)
        return [*states, F.normalize(F.relu(self.linear(x)), dim=-1)]


class ResemblyzerEncoder(AudioEncoder):
    """State l is the output of LSTM layer l + 1; the last state is the speaker embedding of what
    the LSTM has read.

    Args:
        window_frames: after so many frames of 10 ms, a multiple of 4, the LSTM starts anew; null:
            never.
    """

    hop_samples = MEL_HOP_SAMPLES
    models: ClassVar = {"cache:resemblyzer": (256, 4)}

    def __init__(self, path: str, window_frames: int | None = 80, dtype: Dtype = "float32"):
        super().__init__(dtype)
        if window_frames is not None and (window_frames < 1 or window_frames % 4):
            raise PamError(f"window_frames {window_frames}: expected a multiple of 4, or null")
        self.window_frames = window_frames
        self.model = load_pretrained(ResemblyzerModel, path, dtype=self.dtype)
        self.dim = self.model.config.hidden_size
        self.num_states = self.model.config.num_layers + 1
        with torch.device("cpu"):  # even of a model without weights, on the meta device
            self.register_buffer("filters", mel_filters(self.model.config.num_mels))
        self.freeze()

    def native_length(self, samples: int) -> int:
        return -(-samples // MEL_HOP_SAMPLES)

    def encode(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S J D"]:
        frames, ahead = self.native_length(audio.shape[1]), (self.window_frames or 0) // 4
        mel_BFM = self.mel(louder(audio, lengths), frames + ahead).to(self.dtype)
        return self.states(mel_BFM)[:, :, ahead : frames + ahead]

    def states(self, mel: Float[Tensor, "B F M"]) -> Float[Tensor, "B S *F D"]:
        """Of at least these frames: all of the first window, then the second half of every one."""
        if self.window_frames is None:
            return torch.stack(self.model(mel), dim=1)
        step = self.window_frames // 2
        windows = max(-(-mel.shape[1] // step) - 1, 1)
        padded = F.pad(mel, (0, 0, 0, (windows + 1) * step - mel.shape[1]))
        windows_BKWM = padded.unfold(1, self.window_frames, step).transpose(2, 3)
        states = torch.stack(self.model(windows_BKWM.flatten(0, 1)), dim=1)
        states_BSKWD = states.unflatten(0, windows_BKWM.shape[:2]).transpose(1, 2)
        first, later = states_BSKWD[:, :, 0, :step], states_BSKWD[:, :, :, step:].flatten(2, 3)
        return torch.cat([first, later], dim=2)

    def mel(self, audio: Float[Tensor, "B N"], frames: int) -> Float[Tensor, "B F M"]:
        """As librosa's: windows centred on every 10 ms, silence around the clip."""
        end = (frames - 1) * MEL_HOP_SAMPLES + FFT_SAMPLES
        before = FFT_SAMPLES // 2
        padded = F.pad(audio, (before, max(end - before - audio.shape[1], 0)))
        windows = padded.unfold(1, FFT_SAMPLES, MEL_HOP_SAMPLES)[:, :frames]
        window = torch.hann_window(FFT_SAMPLES, device=audio.device)
        return torch.fft.rfft(windows * window).abs().square() @ self.filters.T


def louder(audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B N"]:
    """Clips with an RMS of -30 dBFS at least; silence stays silence."""
    rms_B = (audio.square().sum(dim=1) / lengths).sqrt()
    gain_B = torch.where(rms_B > 0, LEAST_RMS / rms_B, 1.0).clamp(min=1.0)
    return audio * gain_B[:, None]


def mel_filters(num_mels: int) -> Float[Tensor, "M bins"]:
    """Slaney's, as librosa has them: triangles over Hz of area 1 between equal steps of mel."""
    low, high = mel_of(torch.tensor([0.0, SAMPLE_RATE / 2], dtype=torch.float64)).tolist()
    edges = hz_of(torch.linspace(low, high, num_mels + 2, dtype=torch.float64))
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    hz = torch.linspace(0, SAMPLE_RATE / 2, FFT_SAMPLES // 2 + 1, dtype=torch.float64)
    rise, fall = (hz - left) / (centre - left), (right - hz) / (right - centre)
    return (torch.minimum(rise, fall).clamp(min=0) * 2 / (right - left)).float()


# Slaney's scale: 200/3 Hz a mel up to 1000 Hz, then 27 mels for each factor of 6.4.
LINEAR_HZ, LINEAR_MELS, LOG_STEP = 1000.0, 15.0, 27 / math.log(6.4)


def mel_of(hz: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    above = LINEAR_MELS + LOG_STEP * (hz / LINEAR_HZ).clamp(min=1).log()
    return torch.where(hz < LINEAR_HZ, hz * LINEAR_MELS / LINEAR_HZ, above)


def hz_of(mel: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    above = LINEAR_HZ * ((mel - LINEAR_MELS) / LOG_STEP).exp()
    return torch.where(mel < LINEAR_MELS, mel * LINEAR_HZ / LINEAR_MELS, above)
