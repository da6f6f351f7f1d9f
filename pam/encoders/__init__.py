"""Frozen audio encoders under one contract, named in one table.

An encoder turns 16 kHz audio into all of its hidden states (after the front end, after every
layer) at 25 frames a second. It never trains, and its numbers depend on nothing but the clip: not
on its neighbours in the batch, not on padding, not on the outer model's mode or dtype.

    family      models                                    frames/s  width × states        at 25 Hz
    whisper     openai/whisper-tiny, -base, -small              50  384×5, 512×7, 768×13  mean of 2
                openai/whisper-medium, -large-v3                50  1024×25, 1280×33      mean of 2
    wav2vec2    facebook/wav2vec2-base-960h, -large-960h        50  768×13, 1024×25       mean of 2
    hubert      facebook/hubert-base-ls960, -large-ll60k        50  768×13, 1024×25       mean of 2
    wavlm       microsoft/wavlm-base-plus, -large               50  768×13, 1024×25       mean of 2
    moonshine   UsefulSensors/moonshine-tiny, -base           41.7  288×7, 416×9          of 2 or 3
    wakehubert  cache:wakehubert-tiny                           50  256×9                 mean of 2
    beats       BEATs_iter3_plus_AS2M.pt and its kin          6.25  768×13                repeated
    eat         worstchan/EAT-base_epoch30_pretrain           6.25  768×13                repeated
    ecapa       cache:ecapa-voxceleb (SpeechBrain)             100  1024×4                mean of 4
    yamnet      cache:yamnet                               2.08  1024×2                repeated

BEATs and EAT have 8 patches, one for each band of 16 mels, in every 160 ms (`patches.py`): their
mean is a frame, which is repeated 4 times. ECAPA's states are those of its blocks; its speaker
embedding has no frames. YAMNet's frames are 480 ms long; its states are those of the last two
blocks, which alone share a width. With real weights the tests run Whisper tiny.en, Moonshine base,
WakeHuBERT tiny and YAMNet; all other models have been run with small random weights only, and
compared with their original or a slow transcription of it.
"""

# B batch, N samples, J native frames, T frames at 25 Hz, S states (L + 1), D width

from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pam.config import check_keys
from pam.data.audio import SAMPLE_RATE
from pam.encoders.pooling import clip_length, pool_frames
from pam.encoders.precision import keep_narrow_convolutions_in_float32
from pam.errors import UserError
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
    },
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class AudioEncoder(nn.Module):
    """What every encoder gives: `dim`, `num_states`, `output_length` and `forward`.

    A family has one `hop_samples`, defines `native_length` and `encode`, sets `dim` and
    `num_states` and ends its constructor with `freeze()`. conf: its options, `dtype` among them.
    """

    sample_rate: int = SAMPLE_RATE
    hop_samples: int
    dim: int
    num_states: int

    def __init__(self, conf: Mapping[str, Any], allowed: Iterable[str]):
        super().__init__()
        check_keys(conf, allowed, f"conf of {type(self).__name__}")
        name = conf.get("dtype", "float32")
        if name not in DTYPES:
            raise UserError(f"encoder dtype {name!r}: known: {', '.join(DTYPES)}")
        self.dtype = DTYPES[name]

    def native_length(self, samples: int) -> int:
        """Frames at the encoder's own rate; 0 where the clip is too short."""
        raise NotImplementedError

    def encode(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S J D"]:
        """All states at the native rate, in the encoder's dtype.

        audio: float32 whatever that dtype, for the sake of spectra; zero beyond `lengths`.
        """
        raise NotImplementedError

    def output_length(self, samples: int) -> int:
        """Frames at 25 Hz that `samples` samples give: the only place where lengths are made."""
        return clip_length(self.native_length(samples), self.hop_samples, samples)

    @torch.no_grad()
    def forward(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B S T D"], Bool[Tensor, "B T"]]:
        """States and mask (True = real frame); T = output_length(longest clip).

        Frames beyond a clip's end are zero. Raises UserError for a clip that is too short.
        """
        states, frames = self.native(audio, lengths)
        return pool_frames(states, frames, self.hop_samples, lengths)

    @torch.no_grad()
    def native(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B S J D"], Int[Tensor, "B"]]:
        """States at the encoder's own rate, a frame for `hop_samples` samples, and the real frames
        of each clip; beyond them anything may lie. Raises UserError as `forward` does."""
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
            raise UserError(f"a clip of {samples} samples is too short for {type(self).__name__}")
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

    `dim` and `num_states` may be declared too; they must then be those of the checkpoint.
    """
    check_keys(spec, ["family", "path", "conf", "dim", "num_states"], "encoder")
    for key in ("family", "path"):
        if key not in spec:
            raise UserError(f"encoder {dict(spec)}: {key!r} is missing")
    encoder = ENCODERS.get(spec["family"])(spec["path"], dict(spec.get("conf") or {}))
    for key in ("dim", "num_states"):
        actual = getattr(encoder, key)
        if spec.get(key, actual) != actual:
            raise UserError(
                f"encoder {spec['path']!r}: {key} is {actual}, the configuration says {spec[key]}"
            )
    return encoder
