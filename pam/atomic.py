"""Files that survive a kill: written under another name and renamed, or growing line by line."""

import errno
import functools
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

HOST_CHARACTERS = 24  # an id may have 200 bytes, a file name 255
PART = re.compile(rf".+\.pid(\d{{1,9}})@([\w-]{{1,{HOST_CHARACTERS}}})\.part", re.DOTALL)
DAY = 86_400  # seconds


@contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """Yield another name of `final` to write to; rename it on success, remove it on failure."""
    final = Path(final)
    part = _free_part(final)
    if part.is_symlink() and part.is_file():  # another file, which is not to be written through
        part.unlink()
    try:
        yield part
        part.replace(final)
    except BaseException:
        with suppress(OSError):  # the first error counts
            part.unlink()
        raise


@contextmanager
def atomic_folder(final: str | Path) -> Iterator[Path]:
    """As `atomic_path`, an empty folder. A folder of the name `final` is replaced."""
    final = Path(final)
    part = _free_part(final)
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        yield part
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def part_of(final: Path) -> Path:
    """The name of `final` until it is complete. Each process has its own, since two may write the
    same where the file system has no locks."""
    return final.with_name(f"{final.name}.pid{os.getpid()}@{_host()}.part")


def _free_part(final: Path) -> Path:
    """`part_of`, in a folder that is made, and that has no parts of programs that were killed."""
    if not final.parent.is_dir():  # mkdir waits for a lock even if the folder exists
        final.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(final.parent.absolute())
    return part_of(final)


def _host() -> str:
    return re.sub(r"[^\w-]", "_", os.uname().nodename, flags=re.ASCII)[:HOST_CHARACTERS]


@functools.lru_cache(maxsize=1024)  # once in a process, since a folder may have 300,000 files
def _remove_leftovers(folder: Path) -> None:
    with suppress(OSError), os.scandir(folder) as entries:
        for part in [Path(entry) for entry in entries if _is_left(entry)]:
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def _is_left(entry: os.DirEntry) -> bool:
    """Whether it is a part whose program has ended; on another machine, one that is a day old."""
    if not (found := PART.fullmatch(entry.name)):
        return False
    if found[2] != _host():
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > DAY
    try:
        os.kill(int(found[1]), 0)
    except OSError as error:
        return error.errno == errno.ESRCH  # else it is another user's
    return False


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
