"""Registries of parts: each name stands for a class, which is imported on first use."""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from pam.errors import PamError


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown `name`: the nearest known one, then all of them."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(str(name), known, n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}known: {', '.join(known)}"


class Registry:
    """Maps names to `"module:attribute"` strings; adding a part is one line in its registry."""

    def __init__(self, kind: str, entries: Mapping[str, str]):
        self.kind = kind
        self.entries = dict(entries)

    def names(self) -> list[str]:
        return sorted(self.entries)

    def check(self, name: str) -> None:
        """`PamError` with the nearest name for an unknown name; nothing is imported."""
        if name not in self.entries:
            raise PamError(f"unknown {self.kind} {name!r}: {nearest(name, self.entries)}")

    def get(self, name: str) -> Any:
        """The part called `name`. `PamError` with the nearest name if there is none."""
        self.check(name)
        module, attribute = self.entries[name].split(":")
        # In an exported folder (pam.hf.travel) the module's name is relative.
        return getattr(importlib.import_module(module, __package__), attribute)
