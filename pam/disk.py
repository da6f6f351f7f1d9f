"""Errors of a disk, of rights, or of a wrong path, as `PamError` in one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pam.errors import REMEDIES, MachineError, PamError

WRONG_PATH = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn the disk's errors while `path` is written into a `PamError`."""
    try:
        yield
    except OSError as error:
        remedy = REMEDIES.get(error.errno)
        if remedy is None and error.errno in WRONG_PATH and _is_beside(error.filename, Path(path)):
            remedy = f"{error.strerror}: {error.filename}: choose another name"
        if remedy is None:
            raise
        raise PamError(f"{path}: cannot be written: {remedy}") from error


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn an error while `path` is read into a `PamError`: `MachineError`, unless its rights or
    its length are to blame."""
    try:
        yield
    except OSError as error:
        what = f"{path}: cannot be read ({error.strerror})"
        if error.errno in (errno.EPERM, errno.EACCES):
            raise PamError(f"{what}: change its rights") from error
        if error.errno == errno.ENAMETOOLONG:
            raise PamError(f"{what}: correct the path") from error
        raise MachineError(f"{what}: try again later") from error


def _is_beside(file: str | bytes | int | None, path: Path) -> bool:
    """Whether `file` is `path`, a folder above it, or in one of these; not the file of an input."""
    return isinstance(file, str) and Path(file).parent in path.parents
