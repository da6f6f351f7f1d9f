"""A folder, or a file, that only one program at a time may write to."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from pam.disk import writing
from pam.errors import PamError
from pam.log import get_logger

FILE = ".lock"
HELD = (errno.EACCES, errno.EAGAIN)
logger = get_logger(__name__)


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Context of a program that writes to `folder`; `what` names its work in messages.

    PamError if another program is in such a context. The lock ends with its process, however that
    ends. It is a record lock, which child processes do not hold, and which NFS passes on to other
    machines. A file system without locks gets a warning.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a+", encoding="utf-8") as lock:
        take(lock, folder, what)
        yield


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Context of a program that writes small files to an existing `folder`; the next one waits.

    The lock is of the folder itself, so that nothing is left there. It ends with its process.
    """
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX)
        except OSError as error:
            logger.warning("%s: no locks (%s): run one program at a time", folder, error.strerror)
        yield
    finally:
        os.close(opened)


def take_inherited(descriptor: int, path: Path, what: str) -> None:
    """Lock an open file of the shell that started this program, until that shell closes it.

    PamError if another one has locked it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            raise PamError(f"{path}: another {what} is running: wait for it, or end it") from error
        logger.warning("%s: no locks (%s): run one %s at a time", path, error.strerror, what)


@contextmanager
def alone_at(file: Path, what: str) -> Iterator[None]:
    """As `alone`, of a program that writes a file. The lock is beside it, and goes at the end."""
    path = file.with_name(file.name + FILE)
    while True:
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("a+", encoding="utf-8")
        with lock:
            take(lock, file, what)
            if os.fstat(lock.fileno()).st_nlink:  # else its last holder has just removed it
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return


def take(lock: TextIO, path: Path, what: str) -> None:
    """Lock an open file, and write there who holds it. `PamError` if another program does."""
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            lock.seek(0)
            raise PamError(
                f"{path}: another {what} is running ({lock.read() or 'unknown'}): wait for it, or "
                "end it"
            ) from error
        logger.warning("%s: no locks (%s): run one %s at a time", path, error.strerror, what)
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {os.uname().nodename}")
    lock.flush()
