"""Search folders of corpora, which may hold links to other disks."""

import os
from fnmatch import fnmatchcase
from pathlib import Path

from pam.log import get_logger

logger = get_logger(__name__)


def find_files(folder: Path, pattern: str = "*") -> list[Path]:
    """All files at any depth below `folder` whose names match, sorted; no hidden ones, such as
    macOS leaves beside others (._NAME).

    Links to folders are followed. Each folder is searched once, so links may lead in a circle; if
    it lies below `folder` itself, the paths of its files have no link. A folder that cannot be read
    is logged.
    """
    found, searched, starts = [], set(), [str(folder)]
    for start in starts:  # it grows by the links
        for here, inner, names in os.walk(start, onerror=_warn):
            real = os.path.realpath(here)
            if real in searched:
                inner.clear()
                continue
            searched.add(real)
            names = [name for name in names if not name.startswith(".")]
            found += [Path(here, name) for name in names if fnmatchcase(name, pattern)]
            paths = (os.path.join(here, name) for name in sorted(inner))  # noqa: PTH118
            starts += filter(os.path.islink, paths)
    return sorted(found)


def _warn(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        logger.warning("%s: cannot be read (%s): not searched", error.filename, error.strerror)
