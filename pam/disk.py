"""Errors of a full or read-only disk as `PamError`, in one line with a remedy."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pam.errors import PamError

REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EFBIG: "it is larger than files may be here (ulimit -f, or the file system)",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.EACCES: "no permission to write: choose another folder or change its rights",
}


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn the disk's errors while `path` is written into a `PamError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        raise PamError(f"{path}: cannot be written: {REMEDIES[error.errno]}") from error
