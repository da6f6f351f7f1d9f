"""Runs independent tasks in a few processes, and says so when one of them is killed."""

import gc
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from pam.errors import UserError

SECONDS_BETWEEN_LOOKS = 0.5
Task = TypeVar("Task")
Result = TypeVar("Result")
_function: Callable  # of this worker


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], nj: int
) -> Iterator[Result]:
    """Yield `function(task)` as tasks finish, on `nj` processes that share the cores.

    Processes are forked, so they find the caller's models without loading them again; torch must
    not have computed on several threads before. With nj = 1 the caller's process does the work.
    """
    nj = min(nj, len(tasks))
    if nj <= 1:
        yield from map(function, tasks)
        return
    threads = max(1, (os.cpu_count() or 1) // nj)
    fork = multiprocessing.get_context("fork")
    # The function is inherited, not sent: pickling one that holds models would copy them each time.
    inherited = (function, threads, os.getpid())
    with _left_alone_by_gc(), ProcessPoolExecutor(nj, fork, _start_worker, inherited) as pool:
        futures = [pool.submit(_call, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed, perhaps for lack of memory: lower --nj; "
                "the same command resumes"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _left_alone_by_gc() -> Iterator[None]:
    """What workers inherit they share; a collection in each of them would write to all of it."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _start_worker(function: Callable, threads: int, parent: int) -> None:
    global _function
    _function = function
    if torch := sys.modules.get("torch"):  # no need to load it for audio alone
        torch.set_num_threads(threads)
    end_with_parent(parent)


def end_with_parent(parent: int) -> None:
    """End this process when `parent` does, which started it."""
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _call(task: Task) -> Result:
    return _function(task)


def _die_with(parent: int) -> None:
    """A worker whose parent was killed would wait for tasks for ever."""
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
