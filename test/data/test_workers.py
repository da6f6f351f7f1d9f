"""Worker processes: what they inherit, and how they end."""

import os
import subprocess
import sys
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
import os, sys, time
from pam.data.workers import run_tasks

def work(task):
    os.write(1, f"{os.getpid()}\\n".encode())  # one write, or the lines of two workers may mix
    time.sleep(1000)

list(run_tasks(work, [0, 1], nj=2))
"""


def test_workers_die_with_a_killed_parent():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", ORPHANS]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
    files = [Path(f"/proc/{pid}/cmdline") for pid in workers]
    ended = wait_for(lambda: not any(file.is_file() for file in files))
    assert ended, "workers outlive their parent"
