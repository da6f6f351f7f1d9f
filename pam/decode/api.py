"""One clip through a trained model, for programs and the command line."""

# N samples at 16 kHz

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from pam.data.audio import SAMPLE_RATE, load_audio
from pam.decode.greedy import PromptMemory, greedy
from pam.errors import UserError
from pam.model.build import load_experiment
from pam.model.speech_llm import ESPnetPaMModel


@dataclass(frozen=True)
class Answer:
    """What the model says, and the expert its prompt was routed to.

    `expert` is a task's name (a number where no expert has a task), `posteriors` the probability of
    every expert; None and {} where no prompt is routed.
    """

    text: str
    expert: str | None
    posteriors: dict[str, float]


class SpeechLLM:
    """A trained model with its encoders.

    >>> model = SpeechLLM.from_pretrained("exp/pam_mini_short_s0")  # doctest: +SKIP
    >>> model.generate("a.wav", "What can be heard?").text  # doctest: +SKIP
    """

    def __init__(self, model: ESPnetPaMModel):
        self.model = model
        self.memory = PromptMemory(model)

    @classmethod
    def from_pretrained(cls, exp: str | Path, device: str = "cpu") -> "SpeechLLM":
        """The model of exp/NAME; `UserError` where there is none or its parts do not fit."""
        return cls(load_experiment(exp, online=True).to(device))

    def generate(
        self,
        audio: str | Path | Float[np.ndarray, " N"],
        prompt: str,
        sample_rate: int = SAMPLE_RATE,
        max_new_tokens: int = 128,
        maxlenratio: float = 0.5,
    ) -> Answer:
        """Answer `prompt` about one clip: a file, or mono samples at `sample_rate` in ±1.

        `UserError` for audio that cannot be used, and for an empty prompt.
        """
        if not prompt.strip():
            raise UserError("the prompt is empty: say what to do with the audio")
        clip = torch.from_numpy(as_clip(audio, sample_rate))[None]
        lengths = torch.tensor([clip.shape[1]])
        output = greedy(
            self.model,
            {"speech": clip},
            {"speech": lengths},
            [prompt],
            max_new_tokens,
            self.memory,
            maxlenratio=maxlenratio,
        )
        if output.experts is None:
            return Answer(output.texts[0], None, {})
        experts = self.model.experts
        posteriors = dict(zip(experts, output.posteriors[0].tolist(), strict=True))
        return Answer(output.texts[0], experts[output.experts[0]], posteriors)


def as_clip(
    audio: str | Path | Float[np.ndarray, " N"], sample_rate: int = SAMPLE_RATE
) -> Float[np.ndarray, " N"]:
    """Mono float32 samples at 16 kHz of a file or an array."""
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
