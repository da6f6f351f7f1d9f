"""Reads a model that CTranslate2 saved (model.bin, version 6 of the format) without running it."""

import struct
from pathlib import Path

import numpy as np

from pam.errors import PamError

VERSION = 6
# The element types of the format that we meet, by their number.
ELEMENT = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_ctranslate2(path: Path, kind: str) -> dict[str, np.ndarray]:
    """The variables by name, second names included; `kind` is what the model must be."""
    try:
        return _Reader(path.read_bytes()).variables(kind)
    except (ValueError, LookupError, struct.error) as error:
        raise PamError(f"{path}: not a {kind} of CTranslate2, or damaged: {error}") from error


class _Reader:
    """Numbers are little endian; a text has its length before it and a zero byte at its end."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def variables(self, kind: str) -> dict[str, np.ndarray]:
        version = self.number("I")
        if version != VERSION:
            raise ValueError(f"version {version}, expected {VERSION}")
        found = self.text()
        if found != kind:
            raise ValueError(f"it is a {found!r}")
        self.number("I")  # the revision of the kind
        variables = dict(self.variable() for _ in range(self.number("I")))
        for _ in range(self.number("I")):
            name, same = self.text(), self.text()
            variables[name] = variables[same]
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes are left over")
        return variables

    def variable(self) -> tuple[str, np.ndarray]:
        name = self.text()
        shape = [self.number("I") for _ in range(self.number("B"))]
        number = self.number("B")
        if number not in ELEMENT:
            raise ValueError(f"{name} has elements of an unknown type, {number}")
        element = np.dtype(ELEMENT[number]).newbyteorder("<")
        return name, np.frombuffer(self.take(self.number("I")), element).reshape(shape)

    def text(self) -> str:
        return self.take(self.number("H")).rstrip(b"\0").decode()

    def number(self, code: str) -> int:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]

    def take(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self.data):
            raise ValueError(f"it ends within {count} bytes")
        return self.data[self.at - count : self.at]
