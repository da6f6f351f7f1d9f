"""exits.json: plain data, a line for each part, so that diffs are readable."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pam.errors import PamError


def compact(found: Mapping[str, Any]) -> str:
    """The text of the file: a line for each key, and for each key of a set."""
    lines = [f"  {_json(key)}: {_json(value)}" for key, value in found.items() if key != "sets"]
    sets = []
    for name, entry in found["sets"].items():
        parts = ",\n".join(f"      {_json(key)}: {_json(value)}" for key, value in entry.items())
        sets.append(f"    {_json(name)}: {{\n{parts}\n    }}")
    lines.append('  "sets": {\n' + ",\n".join(sets) + "\n  }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """{NAME: content of NAME.json} in C order; PamError if there is none or one is damaged."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        try:
            found[file.stem] = json.loads(file.read_text(encoding="utf-8"))
            found[file.stem]["sets"]
        except (ValueError, KeyError, TypeError) as error:
            raise PamError(f"{file}: not a result of pam.bin.exit_analysis: {error!r}") from error
    if not found:
        raise PamError(f"{folder}: no result of pam.bin.exit_analysis in it")
    return found


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
