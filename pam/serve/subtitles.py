"""Answers with times as subtitles: SRT and WebVTT."""

from collections.abc import Iterable, Sequence
from html import escape

from pam.decode.answer import Answer, Piece


def pieces_of(answer: Answer) -> Sequence[Piece]:
    """The pieces of an answer; of a recording that was not cut, one piece."""
    return answer.pieces or (Piece(0.0, answer.seconds, answer.text),)


def srt(pieces: Iterable[Piece]) -> str:
    """SubRip. Lines of the text stay; pieces without text are left out."""
    spoken = [piece for piece in pieces if piece.text]
    return "".join(
        f"{number}\n{_time(start, ',')} --> {_time(end, ',')}\n{_one_block(text)}\n\n"
        for number, (start, end, text) in enumerate(spoken, 1)
    )


def vtt(pieces: Iterable[Piece]) -> str:
    """WebVTT, as `srt`."""
    cues = [
        f"{_time(start, '.')} --> {_time(end, '.')}\n{escape(_one_block(text), quote=False)}\n\n"
        for start, end, text in pieces
        if text
    ]
    return "WEBVTT\n\n" + "".join(cues)


def _time(seconds: float, point: str) -> str:
    """HH:MM:SS,mmm."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, rest = divmod(milliseconds, 1000)
    return f"{hours:02}:{minutes:02}:{whole:02}{point}{rest:03}"


def _one_block(text: str) -> str:
    """The text without empty lines and without arrows, which would end a block."""
    return "\n".join(filter(None, text.replace("-->", "→").splitlines()))
