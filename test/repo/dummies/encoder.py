"""A dummy encoder: the mean and the peak of every 20 ms, as two hidden states."""

# B batch, N samples, J native frames, S states, D width

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pam.encoders import AudioEncoder, Dtype


class DummyEncoder(AudioEncoder):
    """Knows no weights.

    Args:
        gain: what the audio is multiplied by.
    """

    hop_samples = 320
    models: ClassVar = {"dummy": (3, 2)}

    def __init__(self, path: str, dtype: Dtype = "float32", gain: float = 1.0):
        super().__init__(dtype)
        self.gain, (self.dim, self.num_states) = gain, self.models[path]
        self.freeze()

    def native_length(self, samples: int) -> int:
        return samples // self.hop_samples

    def encode(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S J D"]:
        frames = self.native_length(int(lengths.max()))
        windows = audio[:, : frames * self.hop_samples].unflatten(1, (frames, self.hop_samples))
        windows = (self.gain * windows).to(self.dtype)
        states = torch.stack([windows.mean(-1), windows.amax(-1)], dim=1)
        return F.pad(states[..., None], (0, self.dim - 1), value=1.0)
