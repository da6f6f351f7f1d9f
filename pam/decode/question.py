"""What a program asks: a prompt about a recording, and its limits."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

from pam.decode.audio_input import Audio, name_of
from pam.decode.settings import MAX_NEW_TOKENS, check_threshold
from pam.errors import PamError, is_utf8
from pam.rate import SAMPLE_RATE

MOST_CHARACTERS, MOST_TOKENS = 8_000, 2_048  # of a prompt: a character may be many tokens
Watch = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """A prompt about a recording; `SpeechLLM.generate` explains most attributes.

    Attributes:
        watch: called with the beginning of the answer whenever it has grown. Later text never
            changes what was shown.
        is_wanted: the answer ends where it returns False; it is asked after every pass of the LLM.
    """

    audio: Audio
    prompt: str
    sample_rate: int = SAMPLE_RATE
    max_new_tokens: int = MAX_NEW_TOKENS
    max_tokens_per_second: float | None = None  # that of the model
    name: str | None = None
    cut: bool = True
    skip_silence: float | None = None
    watch: Watch | None = None
    is_wanted: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        if not isinstance(self.max_new_tokens, Integral) or self.max_new_tokens < 1:
            given = repr(self.max_new_tokens)
            raise PamError(f"max_new_tokens {given}: expected a whole number, at least 1")
        if self.skip_silence is not None:
            check_threshold(self.skip_silence)

    @property
    def title(self) -> str:
        """What messages call the recording."""
        return self.name or name_of(self.audio)


def check_prompt(prompt: str) -> None:
    """`PamError` for a prompt that no model can read."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise PamError("the prompt is empty: write what the model should do with the audio")
    if len(prompt) > MOST_CHARACTERS:
        raise PamError(f"a prompt of {len(prompt)} characters: give at most {MOST_CHARACTERS}")
    if not is_utf8(prompt):
        raise PamError(f"prompt {ascii(prompt)}: not UTF-8: write it in this encoding")
