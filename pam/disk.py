"""Errors of a disk, of rights, or of a wrong path, as `PamError` in one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pam.errors import MachineError, PamError

REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EFBIG: "it is larger than files may be here (ulimit -f, or the file system)",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.EPERM: "it is not permitted here: choose another folder",
    errno.EACCES: "no permission to write: choose another folder or change its rights",
}
WRONG_PATH = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


def in_words(error: OSError) -> str | None:
    """One line about an error of the disk, of rights or of a path; None for any other error."""
    file = error.filename or "a file or the output"
    if error.errno == errno.ENAMETOOLONG:
        return f"{file}: the name is too long: shorten it"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{file}: {error.strerror}: choose another folder or change its rights"
    if error.errno in REMEDIES:
        return f"{file}: {REMEDIES[error.errno]}"
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        return f"{file}: {error.strerror}: choose another name"
    return None


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
    """Turn an error while `path`, which exists, is read into a `PamError`: `MachineError`, unless
    its rights are to blame."""
    try:
        yield
    except OSError as error:
        what = f"{path}: cannot be read ({error.strerror})"
        if error.errno in (errno.EPERM, errno.EACCES):
            raise PamError(f"{what}: change its rights") from error
        raise MachineError(f"{what}: try again later") from error


def _is_beside(file: str | bytes | int | None, path: Path) -> bool:
    """Whether `file` is `path`, a folder above it, or in one of these; not the file of an input."""
    return isinstance(file, str) and Path(file).parent in path.parents
