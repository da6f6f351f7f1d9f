"""What the server accepts at most."""

from dataclasses import dataclass, fields

from pam.errors import PamError


@dataclass(frozen=True)
class Limits:
    """Limits of one request, and of all that wait.

    Attributes:
        megabytes: of a request's body.
        seconds: of its audio.
        tokens: of an answer, or of the answer about a piece of a recording that is cut.
        queue: requests that wait.
        queue_seconds: of the audio of all requests that wait.
        batch: requests that are answered together.
    """

    megabytes: float = 25.0
    seconds: float = 600.0
    tokens: int = 256
    queue: int = 64
    queue_seconds: float = 3600.0
    batch: int = 16

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            if not getattr(self, name) > 0:
                raise PamError(f"{name} {getattr(self, name)}: must be more than 0")
