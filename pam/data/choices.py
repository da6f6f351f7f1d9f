"""The text file `choices`: the meaning of the letters in an utterance's multiple-choice prompt.

    utt1 {"A": "2", "B": "3", "C": "1"}

Dump and combine copy them like every text file. Decoding writes them to hyp.jsonl, so that scoring
maps a letter with the choices of its own utterance.
"""

import json
from collections.abc import Mapping

from pam.errors import PamError


def choices_entry(choices: Mapping[str, str]) -> str:
    """The value in the file for {letter: text}, in the order of the letters."""
    return json.dumps(dict(sorted(choices.items())), ensure_ascii=False)


def parse_choices(entry: str) -> dict[str, str]:
    """{letter: text}; `PamError` for anything but two or more capital letters with texts."""
    try:
        choices = json.loads(entry)
    except ValueError:
        choices = None
    if not isinstance(choices, dict) or len(choices) < 2 or not all(map(_good, choices.items())):
        raise PamError(f'{entry!r}: not choices: write {{"A": "one", "B": "two"}}')
    return choices


def _good(choice: tuple[str, object]) -> bool:
    letter, text = choice
    return letter in tuple("ABCDEFGH") and isinstance(text, str) and bool(text.strip())
