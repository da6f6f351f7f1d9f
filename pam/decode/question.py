"""What a program asks: a prompt about a recording, and its limits."""

from collections.abc import Callable
from dataclasses import dataclass

from pam.decode.audio_input import Audio, name_of
from pam.decode.settings import MAX_TOKENS_PER_SECOND, check_threshold
from pam.errors import PamError
from pam.rate import SAMPLE_RATE

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
    max_new_tokens: int = 128
    max_tokens_per_second: float = MAX_TOKENS_PER_SECOND
    name: str | None = None
    cut: bool = True
    skip_silence: float | None = None
    watch: Watch | None = None
    is_wanted: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise PamError("the prompt is empty: write what the model should do with the audio")
        if any("\ud800" <= character <= "\udfff" for character in self.prompt):
            raise PamError(f"prompt {ascii(self.prompt)}: not UTF-8: write it in this encoding")
        if not isinstance(self.max_new_tokens, int) or self.max_new_tokens < 1:
            raise PamError(
                f"max_new_tokens {self.max_new_tokens!r}: expected a whole number from 1"
            )
        if self.skip_silence is not None:
            check_threshold(self.skip_silence)

    @property
    def title(self) -> str:
        """What messages call the recording."""
        return self.name or name_of(self.audio)
