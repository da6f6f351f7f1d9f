"""Answers as OpenAI's API shapes them; `pam` holds what that API has no field for."""

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from pam.decode.answer import Answer
from pam.serve.subtitles import pieces_of, srt, vtt

END_OF_STREAM = "data: [DONE]\n\n"


def event(value: Mapping[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def details(answer: Answer) -> dict[str, Any]:
    """The expert, its probability and the scores of an answer."""
    names = ("expert", "posteriors", "no_speech", "repetition", "seconds", "wall_seconds")
    return {name: getattr(answer, name) for name in names}


def usage(answer: Answer, prompt_tokens: int) -> dict[str, int]:
    """Tokens of the prompt's text and of the answer; audio has no tokens."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": answer.tokens,
        "total_tokens": prompt_tokens + answer.tokens,
    }


class Chat:
    """The answer to one request of /v1/chat/completions, whole or in chunks."""

    def __init__(self, model: str):
        self.head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, answer: Answer, prompt_tokens: int) -> dict[str, Any]:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer.text},
            "logprobs": None,
            "finish_reason": finish_reason(answer),
        }
        return {
            **self.head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage(answer, prompt_tokens),
            "pam": details(answer),
        }

    def chunk(self, delta: Mapping[str, str], reason: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return self.event([choice], **more)

    def event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        return event({**self.head, "object": "chat.completion.chunk", "choices": choices, **more})


def finish_reason(answer: Answer) -> str:
    return "stop" if answer.complete else "length"


def transcription(answer: Answer, form: str, language: str | None) -> tuple[str, str]:
    """The body and the media type of an answer of /v1/audio/transcriptions; `language` is what the
    client said."""
    if form == "text":
        return f"{answer.text}\n", "text/plain"
    if form in ("srt", "vtt"):
        write = srt if form == "srt" else vtt
        return write(pieces_of(answer)), "application/x-subrip" if form == "srt" else "text/vtt"
    body: dict[str, Any] = {"text": answer.text, "pam": details(answer)}
    if form == "verbose_json":
        body |= {"task": "transcribe", "language": language or "unknown"}
        body |= {"duration": answer.seconds, "segments": segments(answer)}
    return json.dumps(body, ensure_ascii=False), "application/json"


def segments(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"id": number, "start": start, "end": end, "text": text}
        for number, (start, end, text) in enumerate(pieces_of(answer))
    ]
