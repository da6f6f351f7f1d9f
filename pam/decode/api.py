"""Answer a prompt about one clip, for programs and the command line."""

# N samples at 16 kHz

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from pam.data.audio import SAMPLE_RATE, load_audio
from pam.data.longest import beyond, is_beyond, read_longest
from pam.data.utterances import AUDIO
from pam.decode.decoder import Decoder
from pam.decode.request import Request
from pam.decode.settings import EXACT, MAX_TOKENS_PER_SECOND, Settings
from pam.errors import UserError
from pam.log import get_logger
from pam.model.build import load_experiment
from pam.model.speech_llm import ESPnetPaMModel


@dataclass(frozen=True)
class Answer:
    """The model's answer, and the expert that the router chose.

    `expert` is a task's name, or a number if experts have no tasks. `posteriors` has the
    probability of every expert. Without a router they are None and {}.
    """

    text: str
    expert: str | None
    posteriors: dict[str, float]


class SpeechLLM:
    """A trained model with its encoders.

    Args:
        longest: seconds of the longest training clip, None if unknown. A longer clip logs a
            warning.
        exact: compute as `pam.bin.decode --exact true` does, to get the same answers.

    >>> model = SpeechLLM.from_pretrained("exp/pam_mini_short_s0")  # doctest: +SKIP
    >>> model.generate("a.wav", "What can be heard?").text  # doctest: +SKIP
    """

    def __init__(self, model: ESPnetPaMModel, longest: float | None = None, exact: bool = EXACT):
        self.model, self.longest = model, longest
        self.decoder = Decoder(model, Settings(exact=exact))

    @classmethod
    def from_pretrained(
        cls, exp: str | Path, device: str = "cpu", exact: bool = EXACT
    ) -> "SpeechLLM":
        """The model of exp/NAME. `UserError` if there is none or its parts do not fit."""
        model = load_experiment(exp, online=True).to(device)
        return cls(model, read_longest(Path(exp)), exact)

    def generate(
        self,
        audio: str | Path | Float[np.ndarray, " N"],
        prompt: str,
        sample_rate: int = SAMPLE_RATE,
        max_new_tokens: int = 128,
        max_tokens_per_second: float = MAX_TOKENS_PER_SECOND,
        name: str | None = None,
    ) -> Answer:
        """Answer `prompt` about one clip: a file, or mono samples at `sample_rate` in ±1.

        An answer has at most `max_new_tokens` tokens. `max_tokens_per_second` limits it further by
        the clip's length, but never below 16 tokens (0: no such limit). Messages call the clip
        `name`; the default is the file's path. `UserError` for audio that cannot be used and for an
        empty prompt.
        """
        check_prompt(prompt)
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens {max_new_tokens}: must be at least 1")
        clip = torch.from_numpy(as_clip(audio, sample_rate))
        name = name or (str(audio) if isinstance(audio, str | Path) else "audio array")
        seconds = len(clip) / SAMPLE_RATE
        if is_beyond(seconds, self.longest):
            get_logger(__name__).warning(beyond(name, seconds, self.longest))
        request = Request(
            name, prompt, lambda: {AUDIO: clip}, max_new_tokens, max_tokens_per_second
        )
        try:
            (answer,) = self.decoder.answers([request])
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        if answer.expert is None:
            return Answer(answer.text, None, {})
        experts = self.model.experts
        posteriors = dict(zip(experts, answer.posterior.tolist(), strict=True))
        return Answer(answer.text, experts[answer.expert], posteriors)


def check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise UserError("the prompt is empty: write what the model should do with the audio")


def as_clip(
    audio: str | Path | Float[np.ndarray, " N"], sample_rate: int = SAMPLE_RATE
) -> Float[np.ndarray, " N"]:
    """A file or an array as mono float32 samples at 16 kHz."""
    if isinstance(audio, str | Path):
        return load_audio(audio)
    samples = np.asarray(audio)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise UserError(
            f"audio array of shape {samples.shape} and type {samples.dtype}: "
            "give mono floating-point samples, one dimension"
        )
    if not samples.size or not np.isfinite(samples).all():
        raise UserError("audio array: empty, or has NaN or infinite samples")
    if sample_rate != SAMPLE_RATE:
        import soxr

        samples = soxr.resample(samples, sample_rate, SAMPLE_RATE)
    return samples.astype(np.float32, copy=False)
