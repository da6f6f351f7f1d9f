"""Write data as Markdown; special characters in the data are escaped."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

GAP = "—"
# Underscores within words, which are frequent in names, need no escape in Markdown.
_SPECIAL = re.compile(r"[\\`*\[\]<>|~$&#]|(?<![a-zA-Z0-9])_|_(?![a-zA-Z0-9])")
LONGEST = 240  # characters of one answer in a table


def one_line(text: Any, longest: int | None = None) -> str:
    """`text` on one line, cut to `longest` characters; None is a gap.

    Control characters and characters that change the writing direction become spaces.
    """
    if text is None:
        return GAP
    plain = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in str(text))
    plain = " ".join(plain.split())
    return plain if longest is None or len(plain) <= longest else plain[: longest - 1] + "…"


def escape(text: Any, longest: int | None = LONGEST) -> str:
    """`text` as plain text on one line of Markdown, also valid in a table; None is a gap."""
    return _SPECIAL.sub(r"\\\g<0>", one_line(text, longest))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells in Markdown. A ":" at the end of a header aligns its column right."""
    names = [name.removesuffix(":") for name in header]
    rules = ["---:" if name.endswith(":") else "---" for name in header]
    lines = [names, rules, *rows]
    if wrong := [row for row in lines if len(row) != len(header)]:
        raise ValueError(f"a row of {len(wrong[0])} cells in a table of {len(header)}")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fenced(text: str) -> str:
    """A code block. Its fence is longer than any in `text`."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text.strip()}\n{fence}"


def number(value: float | None, digits: int = 2) -> str:
    return GAP if value is None else f"{value:.{digits}f}"
