"""Files that survive a kill: written under another name and renamed, or growing line by line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """Yield `final` + ".part" to write to; rename it on success, remove it on failure."""
    final = Path(final)
    if not final.parent.is_dir():  # mkdir waits for a lock even if the folder exists
        final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(final.name + ".part")
    if part.is_symlink() and part.is_file():  # another file, which is not to be written through
        part.unlink()
    try:
        yield part
        part.replace(final)
    except BaseException:
        with suppress(OSError):  # the first error counts
            part.unlink()
        raise


def write_text(final: str | Path, text: str, errors: str = "strict") -> None:
    with atomic_path(final) as part:
        part.write_text(text, encoding="utf-8", errors=errors)


def write_json(final: str | Path, value: Any) -> None:
    write_text(final, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


def complete_lines(path: Path) -> list[str]:
    """The lines, without their ends, of a UTF-8 file that grows line by line.

    What a kill left of a last line is dropped; it may end within a character. A line ends with
    "\n" alone: texts may hold other separators, such as U+2028.
    """
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1].decode("utf-8").split("\n")[:-1]
