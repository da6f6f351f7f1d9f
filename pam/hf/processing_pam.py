"""Inputs of an exported model: tokens with the places of the audio, and audio at 16 kHz."""

# B batch, N samples, T tokens

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.audio_utils import load_audio
from transformers.utils import logging

from pam.hf.configuration_pam import PaMConfig  # first: it refuses a transformers that is too old

# isort: split
from pam.encoders.samples import mono_samples
from pam.errors import PamError
from pam.hf.audio_encoder import PaMAudioEncoder
from pam.llm.text import TextEncoder
from pam.rate import SAMPLE_RATE

HUB = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder")
HUB += ("token",)
logger = logging.get_logger(__name__)
KINDS = "a path, a URL, samples, or a list of these"
TOLERANCE = 1.05  # times the longest clip of the training
AUDIO_TOKEN = "<|audio|>"
DEFAULT_PROMPT = "Transcribe this recording."
# The model reads the prompt first, whichever comes first in the conversation.
CHAT_TEMPLATE = """\
{%- if messages | length != 1 or messages[0]['role'] != 'user' -%}
{{- raise_exception('This model answers one turn of the user, with a text and a recording.') -}}
{%- endif -%}
{%- set content = messages[0]['content'] -%}
{%- if content is string -%}
{{- content -}}
{%- else -%}
{%- for part in content if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- for part in content if part['type'] != 'text' -%}{{- 'AUDIO_TOKEN' -}}{%- endfor -%}
{%- endif -%}
""".replace("AUDIO_TOKEN", AUDIO_TOKEN)


class PaMProcessor(ProcessorMixin):
    """Makes `input_ids`, `attention_mask`, `input_values` and `input_values_mask`.

    Rows are padded on the left. A text is the prompt; the audio token may follow it. The tokens of
    the experiment's template are added here, as ids.

    Args:
        feature_extractor: pads audio, and normalises nothing (encoders do).
        tokenizer: of the LLM, with the audio token.
        audio_token: the place of one audio feature.
        default_prompt: of `apply_transcription_request`.
    """

    def __init__(
        self,
        feature_extractor,
        tokenizer,
        chat_template=CHAT_TEMPLATE,
        audio_token=AUDIO_TOKEN,
        default_prompt=DEFAULT_PROMPT,
    ):
        self.audio_token, self.default_prompt = audio_token, default_prompt
        self.audio_token_id = tokenizer.convert_tokens_to_ids(audio_token)
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> "PaMProcessor":
        """The processor of an exported folder or repository."""
        hub = {name: kwargs[name] for name in HUB if name in kwargs}
        config = PaMConfig.from_pretrained(pretrained_model_name_or_path, **hub)
        kwargs.setdefault("trust_remote_code", False)  # else transformers asks at the terminal
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        processor.configure(config)
        return processor

    def configure(self, config: PaMConfig) -> None:
        """Take template and lengths from the model's configuration."""
        self._config = config
        self._text_ids = TextEncoder(self.tokenizer, config.control_tokens)
        with torch.device("meta"):  # only its lengths are needed
            self._audio_encoder = PaMAudioEncoder(config)

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        audio: Any = None,
        images: None = None,
        videos: None = None,
        sampling_rate: int = SAMPLE_RATE,
        return_tensors: str = "pt",
        **unused: Any,
    ) -> BatchFeature:
        """Inputs of the model for pairs of a prompt and a recording.

        `audio`: samples in ±1 at 16 kHz, mono, or a path or URL, or a list of these. One text
        serves for all recordings; the default is `default_prompt`. `PamError` names what is wrong;
        only an error of the network is that of the network.
        """
        if images is not None or videos is not None or audio is None:
            raise PamError("this model takes one recording for each text: give audio, nothing else")
        if return_tensors != "pt":
            raise PamError(f"return_tensors {return_tensors!r}: only 'pt' is possible")
        if sampling_rate not in (None, SAMPLE_RATE):
            raise PamError(f"sampling rate {sampling_rate}: resample the audio to {SAMPLE_RATE} Hz")
        clips = self.clips(audio)
        if not clips:
            raise PamError(f"audio: an empty list: give {KINDS}")
        texts = self.texts(text, len(clips))
        heard = self.feature_extractor(
            clips,
            sampling_rate=SAMPLE_RATE,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = heard["attention_mask"].long()
        self.warn_of_long(float(mask.sum(1).max()) / SAMPLE_RATE)
        counts = self._audio_encoder.output_lengths(mask.sum(1).tolist())
        rows = [self.tokens(one, count) for one, count in zip(texts, counts, strict=True)]
        data = self.pad_left(rows)
        return BatchFeature(
            data | {"input_values": heard["input_values"], "input_values_mask": mask}
        )

    def clips(self, audio: Any) -> list[np.ndarray]:
        """The samples of each recording; lists in lists are one list."""
        if isinstance(audio, list | tuple):
            if audio and isinstance(audio[0], float):
                return [mono_samples(np.asarray(audio), KINDS)]
            return [clip for one in audio for clip in self.clips(one)]
        if isinstance(audio, str | os.PathLike):
            name = os.fspath(audio)
            try:
                return [mono_samples(load_audio(name, SAMPLE_RATE), KINDS)]
            except (OSError, RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise PamError(f"{name[:200]}: it cannot be read as audio: {reason}") from error
        return [mono_samples(audio, KINDS)]

    def warn_of_long(self, seconds: float) -> None:
        """Nothing is cut: a warning tells of a clip that is longer than those of the training."""
        longest = self._config.longest_seconds
        if longest is not None and seconds > TOLERANCE * longest:
            logger.warning(
                f"{seconds:.1f} s of audio, but the model was trained on clips of up to "
                f"{longest:.1f} s: the answer may miss parts or repeat itself; cut the audio"
            )

    def texts(self, text: str | Sequence[str] | None, count: int) -> list[str]:
        """One text for each of `count` recordings."""
        texts = [text] if text is None or isinstance(text, str) else list(text)
        texts = [self.default_prompt if one is None else one for one in texts]
        texts = texts * count if len(texts) == 1 else texts
        if len(texts) != count:
            raise PamError(f"{len(texts)} texts for {count} recordings: give one text, or one each")
        return texts

    def tokens(self, text: str, count: int) -> list[int]:
        """Opening, prompt, `count` audio tokens, closing."""
        prompt, *after = text.split(self.audio_token)
        if len(after) > 1 or any(after):
            raise PamError(
                f"{text!r}: the prompt comes before the audio: write nothing after "
                f"{self.audio_token}, which stands there once"
            )
        if not prompt.strip():
            raise PamError("the prompt is empty: write what the model should do with the audio")
        config = self._config
        audio = [config.audio_token_id] * count
        return [*config.opening, *self._text_ids(prompt), *audio, *config.closing]

    def pad_left(self, rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` [B, T]; not every tokenizer has a padding token."""
        pad, longest = self._config.end, max(map(len, rows))
        ids = [[pad] * (longest - len(row)) + list(row) for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def replace_audio_token(self, audio_inputs: dict, audio_idx: int, **unused: Any) -> str:
        """The audio tokens of one recording, one for each feature."""
        samples = int(audio_inputs["input_values_mask"][audio_idx].sum())
        return self.audio_token * self._audio_encoder.output_lengths([samples])[0]

    def apply_transcription_request(
        self, audio: Any, prompt: str | Sequence[str] | None = None, **options: Any
    ) -> BatchFeature:
        """Inputs that ask for a transcript; `prompt`: another request than the default."""
        return self(text=prompt, audio=audio, **options)

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "input_values", "input_values_mask"]
