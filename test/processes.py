"""Other processes, as several tests look at them."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pam.lock import alone


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_for(condition: Callable[[], bool], seconds: float = 300.0) -> bool:
    """Whether the condition holds in time. A process that was killed runs for a moment more."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


@contextmanager
def locked_by_another(path: Path, what: str, lock: Callable = alone) -> Iterator[int]:
    """Another process holds the lock of a folder, or by `alone_at` of a file (`pam.lock`). Yields
    its id; then it is killed."""
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    other = fork.Process(target=_hold, args=[path, what, lock, ready])
    other.start()
    try:
        assert ready.wait(60)
        yield other.pid
    finally:
        other.kill()
        other.join()


def _hold(path: Path, what: str, lock: Callable, ready) -> None:
    with lock(path, what):
        ready.set()
        time.sleep(600)
