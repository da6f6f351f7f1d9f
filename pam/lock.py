"""A folder that only one program at a time may write to."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                lock.seek(0)
                raise PamError(
                    f"{folder}: another {what} is running ({lock.read() or 'unknown'}): wait for "
                    "it, or end it"
                ) from error
            logger.warning("%s: no locks (%s): run one %s at a time", folder, error.strerror, what)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {os.uname().nodename}")
        lock.flush()
        yield
