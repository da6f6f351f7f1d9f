"""The bodies of requests, as OpenAI's API defines them.

Options that would change the answer in a way that this server does not offer are refused; others
are ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pam.serve.errors import invalid, unsupported

UNSUPPORTED = (
    *("tools", "functions", "response_format", "logprobs", "stop", "modalities"),
    *("frequency_penalty", "presence_penalty", "logit_bias"),
)
FORMATS = ("json", "text", "verbose_json", "srt", "vtt")


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class InputAudio(BaseModel):
    data: str
    format: str | None = None  # the content says what it is


class AudioPart(BaseModel):
    type: Literal["input_audio"]
    input_audio: InputAudio


class Message(BaseModel):
    role: str
    content: str | list[Annotated[TextPart | AudioPart, Field(discriminator="type")]]


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """The body of /v1/chat/completions."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[Message]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def check(self) -> None:
        """`ApiError` for options that this server does not offer."""
        refuse_sampling(self.temperature)
        if self.n not in (None, 1):
            raise unsupported("n", "this server gives one answer")
        for name in UNSUPPORTED:
            value = (self.model_extra or {}).get(name)
            if value and value not in (["text"], {"type": "text"}):
                raise unsupported(name, "this server does not offer it")

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def prompt_and_audio(self) -> tuple[str, str]:
        """The text and the base64 audio of the one turn. `ApiError` for other conversations."""
        if len(self.messages) != 1 or self.messages[0].role != "user":
            raise invalid("messages", "give one message of the role user: the model has no memory")
        content = self.messages[0].content
        parts = [] if isinstance(content, str) else content
        audio = [part.input_audio.data for part in parts if isinstance(part, AudioPart)]
        texts = [part.text for part in parts if isinstance(part, TextPart)]
        if len(audio) != 1:
            raise invalid("messages", f"{len(audio)} parts of type input_audio: give one")
        if not "".join(texts).strip():
            raise invalid("messages", "no text: say what the model should do with the audio")
        return "\n".join(texts).strip(), audio[0]


class TranscriptionRequest(BaseModel):
    """The fields of /v1/audio/transcriptions, besides the file.

    `prompt` is the model's instruction (OpenAI's is a hint of words); the default is "Transcribe
    the speech.". `language` is ignored: the model decides by prompt.
    """

    model: str
    prompt: str = ""
    response_format: str = "json"
    temperature: float | None = None
    language: str | None = None
    stream: bool = False
    timestamp_granularities: list[str] = []

    def check(self) -> None:
        refuse_sampling(self.temperature)
        if self.response_format not in FORMATS:
            raise invalid("response_format", f"known: {', '.join(FORMATS)}")
        if "word" in self.timestamp_granularities:
            raise unsupported("timestamp_granularities", "times of segments only")
        if self.stream and self.response_format not in ("json", "text"):
            raise unsupported("stream", "only with the response_format json or text")


def refuse_sampling(temperature: float | None) -> None:
    if temperature:
        raise unsupported("temperature", "this server decodes greedily: leave it out, or give 0")


def fault_of(errors: list[dict[str, Any]]) -> tuple[str, str]:
    """The field and the message of pydantic's error that lies deepest: of a union, the branch that
    was meant."""
    deepest = max(errors, key=lambda error: len(error["loc"]))
    return ".".join(map(str, deepest["loc"])) or "body", deepest["msg"]
