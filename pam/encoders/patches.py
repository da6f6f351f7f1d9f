"""The common part of BEATs and EAT: from spectrograms to square patches, from patches to frames.

A log-mel spectrogram (Kaldi's: a window of 25 ms every 10 ms, 128 bands) is cut into patches of
16 windows × 16 bands: 8 patches, low bands first, for every step of 160 ms. All patches attend to
each other. The frame of a step is the mean over its 8 patches, which keeps the model's width;
pooling repeats it up to 25 Hz.

The windows that a clip fills rarely end with a patch. The originals then drop up to 175 ms (BEATs)
or complete the patch (EAT). Here both complete it, so that the last word is not lost.
"""

# B batch, N samples, F windows, M mel bands, J steps, P patches (8 J), S states, D width

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchaudio.compliance import kaldi

from pam.encoders import AudioEncoder
from pam.encoders.padding import padding_mask
from pam.rate import SAMPLE_RATE

MEL_BANDS = 128
WINDOW_SAMPLES = 400
MEL_HOP_SAMPLES = 160
PATCH = 16  # windows, and mel bands
BANDS = MEL_BANDS // PATCH
STEP_SAMPLES = PATCH * MEL_HOP_SAMPLES  # 2560, 160 ms


def window_count(samples: int) -> int:
    """Number of windows that lie wholly in the clip."""
    return max((samples - WINDOW_SAMPLES) // MEL_HOP_SAMPLES + 1, 0)


def log_mel(audio: Float[Tensor, "B N"], windows: int, shape: str) -> Float[Tensor, "B F M"]:
    """The first `windows` windows of clips that silence follows; shape: Kaldi's name of it."""
    needed = (windows - 1) * MEL_HOP_SAMPLES + WINDOW_SAMPLES
    silence = audio.new_zeros(len(audio), max(needed - audio.shape[1], 0))
    clips = torch.cat([audio, silence], dim=1)[:, :needed]
    return torch.stack(
        [
            kaldi.fbank(
                clip[None],
                num_mel_bins=MEL_BANDS,
                sample_frequency=SAMPLE_RATE,
                window_type=shape,
            )
            for clip in clips
        ]
    )


class PatchEncoder(AudioEncoder):
    """An encoder on patches: `model(spectrum_BFM, real_BP)` gives the states of all patches.

    A family defines `spectrum` and, in its constructor, `model`, `dim` and `num_states`.
    """

    hop_samples = STEP_SAMPLES

    def native_length(self, samples: int) -> int:
        return -(-window_count(samples) // PATCH)

    def spectrum(
        self, audio: Float[Tensor, "B N"], real_BF: Bool[Tensor, "B F"]
    ) -> Float[Tensor, "B F M"]:
        """The model's input, normalised. real_BF: windows that lie wholly in the clip."""
        raise NotImplementedError

    def encode(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S J D"]:
        windows = [window_count(n) for n in lengths.tolist()]
        steps = [self.native_length(n) for n in lengths.tolist()]
        real_BF = padding_mask(windows, PATCH * max(steps), audio.device)
        real_BP = padding_mask(steps, max(steps), audio.device).repeat_interleave(BANDS, dim=1)
        states = self.model(self.spectrum(audio, real_BF).to(self.dtype), real_BP)
        states_BSPD = torch.stack(states, dim=1)
        return states_BSPD.unflatten(2, (max(steps), BANDS)).mean(dim=3)
