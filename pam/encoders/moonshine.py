"""Moonshine's encoder: raw waveform in, 41.7 frames a second out."""

# B batch, N samples, J native frames, S states, D width

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder

from pam.encoders import AudioEncoder, Dtype
from pam.encoders.loading import load_pretrained
from pam.encoders.padding import attention_bias, by_length, padding_mask


class MoonshineAudioEncoder(AudioEncoder):
    """State 0 is the front end's output (positions are rotary, so nothing is added to it); the
    last state is after the final layer norm."""

    hop_samples = 64 * 3 * 2  # the strides of its convolutions
    models: ClassVar = {
        "UsefulSensors/moonshine-tiny": (288, 7),
        "UsefulSensors/moonshine-base": (416, 9),
        "cache:moonshine-base": (416, 9),
    }

    def __init__(self, path: str, dtype: Dtype = "float32"):
        super().__init__(dtype)
        self.model = load_pretrained(
            MoonshineEncoder,
            path,
            dtype=self.dtype,
            key_mapping={r"^(model\.)?encoder\.": ""},
            foreign=[r"^(model\.)?decoder\.", r"^proj_out\."],
        )
        self.convs = [self.model.conv1, self.model.conv2, self.model.conv3]
        self.dim = self.model.config.hidden_size
        self.num_states = len(self.model.layers) + 1
        self.freeze()

    def native_length(self, samples: int) -> int:
        for conv in self.convs:
            samples = max((samples - conv.kernel_size[0]) // conv.stride[0] + 1, 0)
        return samples

    def encode(
        self, audio: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S J D"]:
        x = by_length(self._front_end, audio.to(self.dtype), lengths)
        native = [self.native_length(n) for n in lengths.tolist()]
        bias = attention_bias(padding_mask(native, x.shape[1], x.device), x.dtype)
        position_ids = torch.arange(x.shape[1], device=x.device)[None]
        rotary = self.model.rotary_emb(x, position_ids=position_ids)
        states = [x]
        for layer in self.model.layers:
            states.append(layer(states[-1], attention_mask=bias, position_embeddings=rotary))
        states[-1] = self.model.layer_norm(states[-1])
        return torch.stack(states, dim=1)

    def _front_end(self, audio: Float[Tensor, "b n"]) -> Float[Tensor, "b j D"]:
        """Its group norm spans all of time: clips of one length only."""
        x = self.model.groupnorm(torch.tanh(self.model.conv1(audio[:, None])))
        x = F.gelu(self.model.conv2(x))
        return F.gelu(self.model.conv3(x)).transpose(1, 2)
