"""Answer prompts about recordings, for programs, the server and the command line."""

# M fused features of an expert, S_e hidden states of encoder e

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pam.config import load_yaml
from pam.data.longest import read_longest
from pam.decode.answer import Answer, LayerWeights
from pam.decode.answering import Answering
from pam.decode.audio_input import Audio
from pam.decode.decoder import Decoder
from pam.decode.question import MOST_TOKENS, Question, check_prompt
from pam.decode.settings import (
    EXACT,
    MAX_NEW_TOKENS,
    MAX_TOKENS_PER_SECOND,
    NONE,
    Settings,
    answer_limits,
)
from pam.decode.stream import Stream
from pam.errors import PamError
from pam.model.build import load_experiment
from pam.model.speech_llm import ESPnetPaMModel
from pam.rate import SAMPLE_RATE

TRANSCRIBE = "Transcribe the speech."
FILES = ("config.yaml", "model.pth", "template.json", "training_audio.json")


class SpeechLLM:
    """A trained model with its encoders.

    Args:
        longest: seconds of the longest training clip, None if unknown. A longer clip is cut.
        exact: compute as `pam.bin.decode --exact true` does, to get the same answers: those of a
            list are then those of its recordings alone, token by token.
        no_repeat_ngram_size: no answer has a sequence of so many tokens twice; 0: all may.
        max_new_tokens: an answer has at most so many tokens, if a call says nothing else.
        max_tokens_per_second: and at most so many for a second of audio, if a call says nothing
            else; 0: no such limit.

    It answers one call at a time: calls of other threads wait.

    >>> model = SpeechLLM.from_pretrained("exp/pam_mini_short_s0")  # doctest: +SKIP
    >>> model.generate("a.wav", "What can be heard?").text  # doctest: +SKIP
    """

    def __init__(
        self,
        model: ESPnetPaMModel,
        longest: float | None = None,
        exact: bool = EXACT,
        no_repeat_ngram_size: int = 0,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_tokens_per_second: float = MAX_TOKENS_PER_SECOND,
    ):
        self.model, self.longest, self.max_new_tokens = model, longest, max_new_tokens
        # Greedy; single requests leave places for drafts, which change no answer.
        drafter = "ctc" if exact else NONE
        settings = Settings(
            max_tokens_per_second=max_tokens_per_second,
            exact=exact,
            drafter=drafter,
            no_repeat_ngram_size=no_repeat_ngram_size,
        )
        self.decoder, self.turn = Decoder(model, settings), threading.RLock()

    @classmethod
    def from_pretrained(
        cls,
        exp: str | Path,
        device: str = "cpu",
        dtype: str | torch.dtype | None = None,
        exact: bool = EXACT,
        no_repeat_ngram_size: int | None = None,
    ) -> "SpeechLLM":
        """The model of exp/NAME, or of a repository of the hub that has its files (`FILES`), on a
        device of torch such as "cuda".

        `dtype` is that of the LLM's weights, such as "float32"; None: that of the training. No
        answer has a sequence of `no_repeat_ngram_size` tokens twice (0: all may; None: as the
        experiment's configuration says). `PamError` if there is no model or its parts do not fit.
        """
        check_device(device)
        folder = folder_of(exp)
        name = None if dtype is None else str(dtype).removeprefix("torch.")
        model = load_experiment(folder, online=True, dtype=name).to(device)
        limits = answer_limits(load_yaml(folder / "config.yaml"))
        if no_repeat_ngram_size is not None:
            limits["no_repeat_ngram_size"] = no_repeat_ngram_size
        return cls(model, read_longest(folder), exact, **limits)

    def generate(
        self,
        audio: Audio | list[Audio] | tuple[Audio, ...],
        prompt: str | Sequence[str],
        sample_rate: int = SAMPLE_RATE,
        max_new_tokens: int | None = None,
        max_tokens_per_second: float | None = None,
        name: str | None = None,
        cut: bool = True,
        skip_silence: float | None = None,
        stream: bool = False,
    ) -> "Answer | list[Answer] | Stream":
        """Answer `prompt` about a recording, or about each of a list or tuple of recordings.

        A recording is a file's path, its bytes, an open file, mono samples in ±1 (numpy or torch)
        at `sample_rate`, or a row of Hugging Face datasets with its own rate: the row with its
        column `audio`, or only what this column has, which may be an `AudioDecoder`, or a mapping
        with "array", "bytes" or "path". A list may have a list of prompts, one for each. With
        `stream` the result is a `Stream` of text.

        A recording longer than 30 s, or than all training clips, is cut into pieces, and their
        answers are joined (`pam.decode.join`); a file is never in memory as a whole. With
        `cut=False` it is one clip, and a warning is logged.

        An answer, or that of a piece, has at most `max_new_tokens` tokens. `max_tokens_per_second`
        limits it further by the clip's length, but never below 16 tokens (0: no such limit). Where
        they are None, both are as the experiment's configuration says, or 128 and 8. An answer is
        empty where `no_speech` reaches `skip_silence` (None: never). Messages call the recording
        `name`; the default is the file's path. `PamError` for audio that cannot be used and for an
        empty prompt.
        """
        audios: list[Audio] = list(audio) if isinstance(audio, list | tuple) else [audio]
        prompts = [prompt] * len(audios) if isinstance(prompt, str) else list(prompt)
        if len(prompts) != len(audios):
            raise PamError(f"{len(audios)} recordings, {len(prompts)} prompts: give one for each")
        most = self.max_new_tokens if max_new_tokens is None else max_new_tokens
        options = (sample_rate, most, max_tokens_per_second, name, cut, skip_silence)
        questions = [
            Question(recording, text, *options)
            for recording, text in zip(audios, prompts, strict=True)
        ]
        if stream:
            if isinstance(audio, list | tuple):
                raise PamError("stream=True answers one recording: call it for each of the list")
            return Stream(
                lambda watch, is_wanted: self.answer(
                    [replace(questions[0], watch=watch, is_wanted=is_wanted)]
                )[0]
            )
        answers = self.answer(questions)
        return answers if isinstance(audio, list | tuple) else answers[0]

    def transcribe(
        self,
        audio: Audio | list[Audio] | tuple[Audio, ...],
        prompt: str = TRANSCRIBE,
        **options: Any,
    ) -> "Answer | list[Answer] | Stream":
        """As `generate`, with a prompt that asks for a transcript."""
        return self.generate(audio, prompt, **options)

    def route(self, prompt: str | Sequence[str]) -> dict[str, float] | list[dict[str, float]]:
        """The probability of every expert (equation 8) for a prompt, or for each of a list.

        `PamError` for a system without a router.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise PamError("no prompt: give one, or a list of them")
        for one in prompts:
            self.count_tokens(one)
        with self.turn:
            rows = self.model.prompt_posteriors(prompts).tolist()
        found = [dict(zip(self.model.experts, row, strict=True)) for row in rows]
        return found[0] if isinstance(prompt, str) else found

    def layer_weights(self, expert: str) -> LayerWeights:
        """W of equation 5 of a routed expert, for each encoder; {} for fusions without it."""
        routed = getattr(self.model.fusion, "experts", None)
        if not routed:
            return {}
        if expert not in self.model.experts:
            known = ", ".join(self.model.experts)
            raise PamError(f"expert {expert!r}: there is none of this name; known: {known}")
        layers = routed[self.model.experts.index(expert)]
        parts_MS = layers.layer_weights().detach().float().cpu().split(layers.states, dim=1)
        names = [shape.name for shape in self.model.shapes]
        return {name: part.numpy() for name, part in zip(names, parts_MS, strict=True)}

    def count_tokens(self, prompt: str) -> int:
        """The number of tokens of a prompt. `PamError` if no model can read it, or if there are
        more than `MOST_TOKENS`: attention needs memory by the square of the tokens."""
        check_prompt(prompt)
        if (count := len(self.model.llm.prompt_ids(prompt))) > MOST_TOKENS:
            raise PamError(f"a prompt of {count} tokens: give at most {MOST_TOKENS}")
        return count

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers to all questions, whose clips are decoded together."""
        with self.turn:
            answers = dict(self.answers(questions))
        return [answers[number] for number in range(len(questions))]

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """As `answer`, but yields (number of the question, answer) as the recordings end. Threads
        must take turns."""
        for question in questions:
            self.count_tokens(question.prompt)
        for number, answer in Answering(self.decoder, self.longest, questions).run():
            if answer.expert is not None:
                answer = replace(answer, layer_weights=self.layer_weights(answer.expert))
            yield number, answer


def check_device(name: str) -> None:
    """`PamError` for a device that torch does not know or does not see."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, ImportError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise PamError(f'device {name!r}: {reason}: use "cpu", or a device that is here') from error


def folder_of(name: str | Path) -> Path:
    """A folder as it is; the files of USER/NAME on the hub, downloaded if need be."""
    if Path(name).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        raise PamError(
            f"{name}: there is no such folder, and the hub does not give it ({reason}): train it "
            "with a recipe, or correct the name"
        ) from error
