"""PaM: Speech LLMs that hear through a prompt-aware mixture of audio encoders.

>>> from pam import SpeechLLM
>>> model = SpeechLLM.from_pretrained("exp/pam_mini_short_s0")  # doctest: +SKIP
>>> model.generate("a.wav", "What can be heard?").text  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pam.decode.answer import Answer
    from pam.decode.api import SpeechLLM
    from pam.errors import PamError

__version__ = "0.1.0"
__all__ = ["Answer", "PamError", "SpeechLLM", "__version__"]
# Imported when they are asked for: torch takes seconds.
_HOMES = {"Answer": "pam.decode.answer", "PamError": "pam.errors", "SpeechLLM": "pam.decode.api"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
