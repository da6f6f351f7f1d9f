"""The file `choices`: what the letters of an utterance's multiple-choice prompt stand for.

    utt1 {"A": "2", "B": "3", "C": "1"}

They travel through dump and combine as every text file does, and with each answer into hyp.jsonl,
so that scoring maps a letter through the choices of its own item.
"""

import json
from collections.abc import Mapping

from pam.errors import UserError


def choices_entry(choices: Mapping[str, str]) -> str:
    """The value in the file for {letter: text}, in the order of the letters."""
    return json.dumps(dict(sorted(choices.items())), ensure_ascii=False)


def parse_choices(entry: str) -> dict[str, str]:
    """{letter: text}; `UserError` for anything but two or more capital letters with texts."""
    try:
        choices = json.loads(entry)
    except ValueError:
        choices = None
    if not isinstance(choices, dict) or len(choices) < 2 or not all(map(_good, choices.items())):
        raise UserError(f'{entry!r}: no choices: write {{"A": "one", "B": "two"}}')
    return choices


def _good(choice: tuple[str, object]) -> bool:
    letter, text = choice
    return letter in tuple("ABCDEFGH") and isinstance(text, str) and bool(text.strip())
