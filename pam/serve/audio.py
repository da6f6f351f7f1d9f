"""The audio of a request: decoded within limits, and never by a name or an address."""

# N samples at 16 kHz

import base64
import binascii
import re
from tempfile import SpooledTemporaryFile
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

from pam.decode.audio_input import TooLongError, stream_content
from pam.errors import MachineError, PamError
from pam.log import get_logger
from pam.serve.errors import ApiError, invalid, overloaded

logger = get_logger(__name__)
DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w=.+-]+)*;base64,", re.IGNORECASE)


def decode_base64(data: str, param: str) -> bytes:
    """The bytes of base64 or of a data URL. `ApiError` for other addresses: none is fetched."""
    if found := DATA_URL.match(data):
        data = data[found.end() :]
    elif ":" in data[:64]:
        raise invalid(param, "give base64 or a data URL; addresses are not fetched")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(param, f"not base64: {error}") from error


def read_clip(
    content: bytes | BinaryIO | SpooledTemporaryFile, most_seconds: float, param: str
) -> Float[np.ndarray, " N"]:
    """Mono samples at 16 kHz. `ApiError` 413 for longer audio, which is not decoded,
    400 for content that is no audio, and 503 where this machine cannot read it now."""
    try:
        return np.concatenate(list(stream_content(content, most_seconds)))
    except TooLongError as error:
        raise ApiError(413, f"{param}: {error}", "audio_too_long", param) from error
    except (OSError, MachineError) as error:
        logger.error("audio of a request: %s", error)
        raise overloaded("the server cannot read audio now") from error
    except PamError as error:
        raise invalid(param, str(error)) from error
