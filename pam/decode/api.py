"""Answer a prompt about one clip, for programs and the command line."""

# N samples at 16 kHz

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from pam.data.audio import SAMPLE_RATE, load_audio, stream_audio
from pam.data.cut import AudioPiece, cut_audio, longest_piece, overlap_seconds
from pam.data.longest import beyond, is_beyond, read_longest
from pam.data.utterances import AUDIO
from pam.decode.answer import Answer
from pam.decode.checks import no_speech, repetition
from pam.decode.decoder import Decoder
from pam.decode.join import join_answers, transcribes
from pam.decode.request import Request
from pam.decode.settings import EXACT, MAX_TOKENS_PER_SECOND, NONE, Settings, check_threshold
from pam.errors import PamError
from pam.log import get_logger
from pam.model.build import load_experiment
from pam.model.speech_llm import ESPnetPaMModel

PIECES = 8  # of a long recording, decoded at once


class SpeechLLM:
    """A trained model with its encoders.

    Args:
        longest: seconds of the longest training clip, None if unknown. A longer clip is cut.
        exact: compute as `pam.bin.decode --exact true` does, to get the same answers.

    >>> model = SpeechLLM.from_pretrained("exp/pam_mini_short_s0")  # doctest: +SKIP
    >>> model.generate("a.wav", "What can be heard?").text  # doctest: +SKIP
    """

    def __init__(self, model: ESPnetPaMModel, longest: float | None = None, exact: bool = EXACT):
        self.model, self.longest = model, longest
        # Lossless; single requests leave places for drafts.
        self.decoder = Decoder(model, Settings(exact=exact, drafter="ctc" if exact else NONE))

    @classmethod
    def from_pretrained(
        cls, exp: str | Path, device: str = "cpu", exact: bool = EXACT
    ) -> "SpeechLLM":
        """The model of exp/NAME. `PamError` if there is none or its parts do not fit."""
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
        cut: bool = True,
        skip_silence: float | None = None,
    ) -> Answer:
        """Answer `prompt` about one recording: a file, or mono samples at `sample_rate` in ±1.

        A recording longer than 30 s, or than all training clips, is cut into pieces, and their
        answers are joined (`pam.decode.join`); a file is never in memory as a whole. With
        `cut=False` it is one clip, and a warning is logged.

        An answer, or that of a piece, has at most `max_new_tokens` tokens. `max_tokens_per_second`
        limits it further by the clip's length, but never below 16 tokens (0: no such limit). It is
        empty where `no_speech` reaches `skip_silence` (None: never). Messages call the recording
        `name`; the default is the file's path. `PamError` for audio that cannot be used and for an
        empty prompt.
        """
        check_prompt(prompt)
        if max_new_tokens < 1:
            raise PamError(f"max_new_tokens {max_new_tokens}: must be at least 1")
        if skip_silence is not None:
            check_threshold(skip_silence)
        name = name or (str(audio) if isinstance(audio, str | Path) else "audio array")
        pieces = self._pieces(audio, sample_rate, name, cut)
        answers, times = [], []
        while group := list(islice(pieces, PIECES)):
            times += [(piece.start, piece.end) for piece in group]
            try:
                answers += self._answer(
                    group, prompt, max_new_tokens, max_tokens_per_second, skip_silence
                )
            except PamError as error:
                raise PamError(f"{name}: {error}") from error
            if len(times) > 1:
                get_logger(__name__).info("%s: %d pieces to %.0f s", name, len(times), times[-1][1])
        if len(answers) == 1:
            return answers[0]
        overlap = overlap_seconds(longest_piece(self.longest))
        is_transcript = transcribes(answers[0].expert, self.model.tasks)
        return join_answers(times, answers, overlap if is_transcript else None)

    def _pieces(
        self, audio: str | Path | Float[np.ndarray, " N"], sample_rate: int, name: str, cut: bool
    ) -> Iterator[AudioPiece]:
        if cut:
            is_file = isinstance(audio, str | Path)
            blocks = stream_audio(audio) if is_file else [as_clip(audio, sample_rate)]
            yield from cut_audio(blocks, longest_piece(self.longest))
            return
        piece = AudioPiece(0.0, as_clip(audio, sample_rate))
        if is_beyond(piece.end, self.longest):
            get_logger(__name__).warning(beyond(name, piece.end, self.longest))
        yield piece

    def _answer(
        self,
        pieces: Sequence[AudioPiece],
        prompt: str,
        max_new_tokens: int,
        max_tokens_per_second: float,
        skip_silence: float | None,
    ) -> list[Answer]:
        clips = [torch.from_numpy(piece.samples) for piece in pieces]
        requests = [
            Request(place, prompt, lambda c=clip: {AUDIO: c}, max_new_tokens, max_tokens_per_second)
            for place, clip in enumerate(clips)
        ]
        found = {answer.key: answer for answer in self.decoder.answers(requests)}
        answers = []
        for place, piece in enumerate(pieces):
            answer, expert, posteriors = found[place], None, {}
            if answer.expert is not None:
                expert = self.model.experts[answer.expert]
                values = answer.posterior.tolist()
                posteriors = dict(zip(self.model.experts, values, strict=True))
            score = no_speech(piece.samples, transcribes(expert, self.model.tasks))
            skipped = skip_silence is not None and score >= skip_silence
            text = "" if skipped else answer.text
            answers.append(Answer(text, expert, posteriors, score, repetition(text), skipped))
        return answers


def check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise PamError("the prompt is empty: write what the model should do with the audio")


def as_clip(
    audio: str | Path | Float[np.ndarray, " N"], sample_rate: int = SAMPLE_RATE
) -> Float[np.ndarray, " N"]:
    """A file or an array as mono float32 samples at 16 kHz."""
    if isinstance(audio, str | Path):
        return load_audio(audio)
    samples = np.asarray(audio)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise PamError(
            f"audio array of shape {samples.shape} and type {samples.dtype}: "
            "give mono floating-point samples, one dimension"
        )
    if not samples.size or not np.isfinite(samples).all():
        raise PamError("audio array: empty, or has NaN or infinite samples")
    if sample_rate != SAMPLE_RATE:
        import soxr

        samples = soxr.resample(samples, sample_rate, SAMPLE_RATE)
    return samples.astype(np.float32, copy=False)
