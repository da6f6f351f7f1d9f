"""Worker processes: what they inherit, and how they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import wait_for

from pam.data.workers import run_tasks
from pam.errors import PamError


def die(task: int) -> int:
    if task == 1:
        os._exit(9)
    return task


def test_a_killed_worker_is_an_error_not_a_hang():
    with pytest.raises(PamError, match="worker process was killed.*lower --nj"):
        list(run_tasks(die, [0, 1, 2, 3], nj=2))


class Unsendable:
    """Stands for a function that holds models: it must reach the workers without being pickled."""

    def __reduce__(self):
        raise TypeError("pickled")

    def __call__(self, task: int) -> int:
        return task + 1


def test_workers_inherit_the_function():
    assert sorted(run_tasks(Unsendable(), [0, 1, 2, 3], nj=2)) == [1, 2, 3, 4]


ORPHANS = """
import os, signal, sys, time
from pam.data.workers import run_tasks

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job would ignore it

def work(task):
    os.write(1, f"{os.getpid()}\\n".encode())  # one write, or the lines of two workers may mix
    time.sleep(1000)

list(run_tasks(work, [0, 1], nj=2))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(number):
    """Ctrl-C, too, reaches only the parent, since each worker has a session of its own."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", ORPHANS]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=root, text=True, **pipes) as parent:
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(number)
        assert parent.wait(30) != 0
    files = [Path(f"/proc/{pid}/cmdline") for pid in workers]
    ended = wait_for(lambda: not any(file.is_file() for file in files))
    assert ended, "workers outlive their parent"


def test_each_worker_has_a_session_of_its_own():
    sessions = set(run_tasks(session, range(8), nj=2))
    assert len(sessions) == 2 and os.getsid(0) not in sessions


def session(_task: int) -> int:
    time.sleep(0.2)  # so that both workers get tasks
    return os.getsid(0)
