"""Answer many questions together: cut recordings into clips, decode these, join their answers."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch

from pam.data.cut import AudioPiece, cut_audio, longest_piece, overlap_seconds
from pam.data.longest import beyond, is_beyond
from pam.data.utterances import AUDIO
from pam.decode.answer import Answer
from pam.decode.audio_input import load_input, stream_input
from pam.decode.checks import no_speech, repetition
from pam.decode.chunks import in_chunks
from pam.decode.decoder import Decoder
from pam.decode.join import join_answers, settled_text, transcribes
from pam.decode.question import Question
from pam.decode.request import Answered, Request
from pam.errors import PamError
from pam.log import get_logger

CLIPS = 32  # decoded at once
UNFINISHED = "\ufffd"  # a character whose last bytes are still to come

logger = get_logger(__name__)


@dataclass(frozen=True)
class Clip:
    """A piece of the recording of question `number`."""

    number: int
    piece: AudioPiece
    is_first: bool
    is_last: bool

    @property
    def is_whole(self) -> bool:
        """Whether it is the recording."""
        return self.is_first and self.is_last


class Answering:
    """The answers to `questions`, as far as they are known.

    Args:
        longest: seconds of the longest training clip, None if unknown.
    """

    def __init__(self, decoder: Decoder, longest: float | None, questions: Sequence[Question]):
        self.decoder, self.model, self.longest = decoder, decoder.model, longest
        self.questions = questions
        self.times: list[list[tuple[float, float]]] = [[] for _ in questions]
        self.answers: list[list[Answer]] = [[] for _ in questions]
        self.stopped: set[int] = set()  # questions whose answer is not wanted any more

    def run(self) -> Iterator[tuple[int, Answer]]:
        """Yield (number of the question, answer) as the recordings end."""
        started = time.monotonic()
        clips = chain.from_iterable(map(self.clips, range(len(self.questions))))
        for group in in_chunks(clips, CLIPS):
            self.answer_group(group)
            for number in self.ended(group):
                yield number, replace(self.joined(number), wall_seconds=time.monotonic() - started)

    def ended(self, group: Sequence[Clip]) -> set[int]:
        """The questions without a further clip: their recording ended, or nobody wants more."""
        self.show_joined({clip.number for clip in group if not clip.is_whole})
        return {c.number for c in group if c.is_last or c.number in self.stopped}

    # --- from recordings to clips

    def clips(self, number: int) -> Iterator[Clip]:
        """The clips of a recording. One more is read ahead, to know whether the first is whole."""
        pieces = self.pieces(self.questions[number])
        this, following = next(pieces), next(pieces, None)
        yield Clip(number, this, True, following is None)
        while following is not None and number not in self.stopped:
            this, following = following, next(pieces, None)
            yield Clip(number, this, False, following is None)

    def pieces(self, question: Question) -> Iterator[AudioPiece]:
        """The pieces of a recording. `PamError` with its name if it cannot be read."""
        try:
            yield from self.cut(question) if question.cut else [self.uncut(question)]
        except PamError as error:
            raise PamError(renamed(str(error), question)) from error

    def cut(self, question: Question) -> Iterator[AudioPiece]:
        blocks = stream_input(question.audio, question.sample_rate)
        return cut_audio(blocks, longest_piece(self.longest))

    def uncut(self, question: Question) -> AudioPiece:
        piece = AudioPiece(0.0, load_input(question.audio, question.sample_rate))
        if is_beyond(piece.end, self.longest):
            logger.warning(beyond(question.title, piece.end, self.longest))
        return piece

    # --- from clips to answers

    def answer_group(self, group: Sequence[Clip]) -> None:
        requests = [self.request(place, clip) for place, clip in enumerate(group)]
        found = {answered.key: answered for answered in self.decoder.answers(requests)}
        for place, clip in enumerate(group):
            self.times[clip.number].append((clip.piece.start, clip.piece.end))
            self.answers[clip.number].append(self.made(found[place], clip))

    def request(self, place: int, clip: Clip) -> Request:
        question, samples = self.questions[clip.number], torch.from_numpy(clip.piece.samples)
        per_second = question.max_tokens_per_second
        if per_second is None:
            per_second = self.decoder.settings.max_tokens_per_second
        request = Request(
            place,
            question.prompt,
            lambda: {AUDIO: samples},
            question.max_new_tokens,
            per_second,
            question.title,
        )
        if question.watch is None and question.is_wanted is None:
            return request
        return replace(request, watch=lambda tokens: self.watched(clip, tokens))

    def watched(self, clip: Clip, tokens: Sequence[int]) -> bool:
        """Show the first tokens of a clip's answer, where they are the answer's and stay so.
        Returns whether more are wanted."""
        question = self.questions[clip.number]
        if question.watch is not None and clip.is_whole and question.skip_silence is None:
            question.watch(self.begun(tokens))
        return is_wanted(question)

    def begun(self, tokens: Sequence[int]) -> str:
        """The text of an answer's first tokens, without the start of a character."""
        text = self.model.tokenizer.decode(tokens, skip_special_tokens=True)
        return text.rstrip(UNFINISHED).strip()

    def made(self, answered: Answered, clip: Clip) -> Answer:
        question, expert, posteriors = self.questions[clip.number], None, {}
        if answered.expert is not None:
            expert = self.model.experts[answered.expert]
            values = answered.posterior.tolist()
            posteriors = dict(zip(self.model.experts, values, strict=True))
        score = no_speech(clip.piece.samples, transcribes(expert, self.model.tasks))
        skipped = question.skip_silence is not None and score >= question.skip_silence
        text = "" if skipped else answered.text
        return Answer(
            text,
            expert,
            posteriors,
            score,
            repetition(text),
            skipped,
            tokens=len(answered.tokens),
            complete=answered.complete,
        )

    # --- from the answers about clips to that about the recording

    def joined(self, number: int) -> Answer:
        times, answers = self.times[number], self.answers[number]
        answer = answers[0]
        if len(answers) > 1:
            answer = join_answers(times, answers, self.overlap(answer))
        return replace(answer, seconds=times[-1][1])

    def overlap(self, answer: Answer) -> float | None:
        """Seconds by which pieces overlap, if their answers are transcripts."""
        is_transcript = transcribes(answer.expert, self.model.tasks)
        return overlap_seconds(longest_piece(self.longest)) if is_transcript else None

    def show_joined(self, numbers: set[int]) -> None:
        """Log how far long recordings are, and show who watches what no later piece can change."""
        for number in sorted(numbers):
            question, texts = self.questions[number], [a.text for a in self.answers[number]]
            seconds = self.times[number][-1][1]
            logger.info("%s: %d pieces to %.0f s", question.title, len(texts), seconds)
            text = settled_text(texts, self.overlap(self.answers[number][0]))
            if question.watch is not None:
                question.watch(text)
            if not is_wanted(question):
                self.stopped.add(number)


def renamed(message: str, question: Question) -> str:
    """A message that begins with what the user calls the recording."""
    if isinstance(question.audio, str | Path):
        message = message.removeprefix(f"{question.audio}: ")
    return message if message.startswith(question.title) else f"{question.title}: {message}"


def is_wanted(question: Question) -> bool:
    return question.is_wanted is None or question.is_wanted()
