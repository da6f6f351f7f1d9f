"""Frozen audio encoders under one contract, named in one registry.

An encoder turns 16 kHz audio into all of its hidden states (after the front end, after every
layer) at 25 frames a second. It never trains. Its states depend on the clip alone: not on the other
clips of the batch, on padding, or on the outer model's mode or dtype.

Each family declares in its own file its options (its constructor's keyword arguments), its rate
(`hop_samples`) and the shapes of its models (`models`); `python -m pam.bin.config --explain
encoders` prints them. Pooling to 25 Hz takes the mean of 2 frames of a family at 50 Hz, of 4 at
100 Hz, of 2 or 3 at 41.7 Hz, and repeats the frames of slower families.

BEATs and EAT have 8 patches, one for each band of 16 mels, in every 160 ms (`patches.py`): their
mean is a frame, which is repeated 4 times. ECAPA's states are those of its blocks; its speaker
embedding has no frames. YAMNet's frames are 480 ms long; its states are those of the last two
blocks, which alone share a width. Resemblyzer's last state is its speaker embedding, at every
frame. With real weights the tests run Whisper tiny.en and base, Moonshine base, WakeHuBERT tiny,
YAMNet and Resemblyzer; all other models have been run with small random weights only, and compared
with their original or a slow transcription of it.
"""

# B batch, N samples, J native frames, T frames at 25 Hz, S states (L + 1), D width

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pam.encoders.pooling import clip_length, pool_frames
from pam.encoders.precision import keep_narrow_convolutions_in_float32
from pam.errors import PamError
from pam.options import check_init_options, check_keys
from pam.rate import SAMPLE_RATE
from pam.registry import Registry

ENCODERS = Registry(
    "encoder",
    {
        "whisper": "pam.encoders.whisper:WhisperAudioEncoder",
        "wav2vec2": "pam.encoders.ssl:Wav2Vec2Encoder",
        "hubert": "pam.encoders.ssl:HubertEncoder",
        "wavlm": "pam.encoders.ssl:WavLMEncoder",
        "moonshine": "pam.encoders.moonshine:MoonshineAudioEncoder",
        "wakehubert": "pam.encoders.wakehubert:WakeHubertEncoder",
        "beats": "pam.encoders.beats:BeatsEncoder",
        "eat": "pam.encoders.eat:EatEncoder",
        "ecapa": "pam.encoders.ecapa:EcapaEncoder",
        "yamnet": "pam.encoders.yamnet:YamnetEncoder",
        "resemblyzer": "pam.encoders.resemblyzer:ResemblyzerEncoder",
    },
)
Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class AudioEncoder(nn.Module):
    """The contract of encoders: `dim`, `num_states`, `output_length` and `forward`.

    A family has one `hop_samples`, defines `native_length` and `encode`, sets `dim` and
    `num_states` and ends its constructor with `freeze()`. `models` are (dim, num_states) of known
    checkpoints, by path; other checkpoints are possible.

    Args:
        dtype: type of the weights and of the arithmetic.
    """

    sample_rate: int = SAMPLE_RATE
    hop_samples: int
    dim: int
    num_states: int
    models: ClassVar[Mapping[str, tuple[int, int]]] = {}

    def __init__(self, dtype: Dtype = "float32"):
        super().__init__()
        if dtype not in DTYPES:
            raise PamError(f"encoder dtype {dtype!r}: known: {', '.join(DTYPES)}")
        self.dtype = DTYPES[dtype]

    def native_length(self, samples: int) -> int:
        """Number of frames at the encoder's own rate; 0 if the clip is too short."""
        raise NotImplementedError

    def padded_samples(self, samples: int) -> int:
        """Samples that the encoder computes for a clip of `samples`: with silence that it adds.
        Batches of a dump are measured by them."""
        return samples

    def encode(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S J D"]:
        """All states at the native rate, in the encoder's dtype.

        audio: float32 for any dtype, since spectra need it; zero beyond `lengths`.
        """
        raise NotImplementedError

    def output_length(self, samples: int) -> int:
        """Number of frames at 25 Hz for `samples` samples. No other code computes lengths."""
        return clip_length(self.native_length(samples), self.hop_samples, samples)

    @torch.no_grad()
    def forward(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B S T D"], Bool[Tensor, "B T"]]:
        """States and mask (True = real frame); T = output_length(longest clip).

        Frames beyond a clip's end are zero. Raises PamError for a clip that is too short.
        """
        states, frames = self.native(audio, lengths)
        return pool_frames(states, frames, self.hop_samples, lengths)

    @torch.no_grad()
    def native(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B S J D"], Int[Tensor, "B"]]:
        """States at the encoder's own rate (one frame per `hop_samples`), and real frames of each
        clip. Values beyond the real frames are arbitrary. Raises PamError as `forward` does."""
        native = [self._checked_length(n, audio.shape[1]) for n in lengths.tolist()]
        audio = audio[:, : int(lengths.max())]
        real_BN = torch.arange(audio.shape[1], device=audio.device) < lengths[:, None]
        clean = torch.where(real_BN, audio, 0).float()
        with torch.autocast(audio.device.type, enabled=False):
            states = self._checked_states(self.encode(clean, lengths), native)
        return states, torch.tensor(native, device=audio.device)

    def _checked_states(self, states: Tensor, native: list[int]) -> Tensor:
        expected = (len(native), self.num_states, max(native), self.dim)
        if tuple(states.shape) != expected:
            raise RuntimeError(
                f"{type(self).__name__}: states are {tuple(states.shape)}, its native_length and "
                f"attributes promise {expected}: they disagree"
            )
        return states

    def _checked_length(self, samples: int, longest: int) -> int:
        if not 0 <= samples <= longest:
            raise ValueError(f"a length of {samples} samples in a batch of {longest}")
        frames = self.native_length(samples)
        if frames < 1:
            raise PamError(f"a clip of {samples} samples is too short for {type(self).__name__}")
        return frames

    def freeze(self) -> None:
        if self.dtype != torch.float32:
            keep_narrow_convolutions_in_float32(self)
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: no dropout, layer drop or SpecAugment in a frozen encoder."""
        return super().train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves between devices, but keeps its dtype when an outer model is cast."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            probe = fn(tensor.new_empty(0))
            return fn(tensor) if probe.dtype == tensor.dtype else tensor.to(probe.device)

        return super()._apply(keep_dtype, recurse)


def load_encoder(spec: Mapping[str, Any]) -> AudioEncoder:
    """The encoder of `{"family": …, "path": "cache:NAME" | folder | hub name, "conf": {…}}`.

    `dim` and `num_states` are optional; they must equal those of the checkpoint.
    """
    check_keys(spec, ["family", "path", "conf", "dim", "num_states"], "encoder")
    for key in ("family", "path"):
        if key not in spec:
            raise PamError(f"encoder {dict(spec)}: {key!r} is missing")
    cls, conf = ENCODERS.get(spec["family"]), spec.get("conf") or {}
    check_init_options(cls, conf, f"conf of {cls.__name__}")
    encoder = cls(spec["path"], **conf)
    for key in ("dim", "num_states"):
        actual = getattr(encoder, key)
        if spec.get(key, actual) != actual:
            raise PamError(
                f"encoder {spec['path']!r}: {key} is {actual}, the configuration says {spec[key]}"
            )
    return encoder
