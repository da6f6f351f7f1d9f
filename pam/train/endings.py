"""How a process of a training ends, and tells its launcher and its user why."""

import atexit
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pam.errors import PamError

# What a process tells its launcher begins with one of these.
USER_ERROR = f"{PamError.__name__}: "
LOST = "the connection to another process failed, perhaps because it has ended"


def tell_launcher(message: str) -> None:
    """Write a message into the file that torchrun reads; to stderr, if another launcher is used."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is None:
        print(f"error: {message}", file=sys.stderr)
        return
    told = {"message": message, "timestamp": int(time.time())}
    Path(file).write_text(json.dumps(told), encoding="utf-8")


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Context of a program's last work: the process ends without Python's finalisation.

    In it threads of the group, which may outlive the group, abort the process now and then. If the
    work fails, that hides why, and the group cannot be destroyed: that may wait for processes that
    no longer answer. The status is the error's, else 0. What was imported since, such as wandb,
    still ends as usual.
    """
    status: int | None = None

    def end() -> None:
        if status is not None:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)

    atexit.register(end)
    try:
        yield
    except BaseException as error:
        status = _status_of(error)
        raise
    status = 0


def _status_of(error: BaseException) -> int:
    """The exit status of a process that this error ends."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 130 if isinstance(error, KeyboardInterrupt) else 1


@contextmanager
def readers_explained() -> Iterator[None]:
    """Turn an error that a DataLoader's killed process causes into a PamError.

    PyTorch's handler of SIGCHLD raises one wherever the program is, once: also while another error
    of the same reader is explained. So the explanation is explained, too.
    """
    with _explained(), _explained():
        yield


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
        if not _is_of_killed_reader(error):
            raise
        _ignore_readers()
        raise PamError(
            "a process that reads data was killed, perhaps for lack of memory: lower num_workers; "
            "the same command resumes"
        ) from error


def _ignore_readers() -> None:
    """Take PyTorch's handler away, which would raise it again."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _is_of_killed_reader(error: Exception) -> bool:
    """PyTorch says it, unless the connection breaks while a batch is taken from the process. An
    error that the process itself had is another thing."""
    if isinstance(error, RuntimeError):
        return "DataLoader worker (pid" in str(error)
    frames = (frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__))
    return "in DataLoader worker process" not in str(error) and "_try_get_data" in frames
