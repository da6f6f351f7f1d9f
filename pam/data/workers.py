"""Run independent work items in several processes; an error says if one of them was killed."""

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

from pam.errors import PamError

SECONDS_BETWEEN_LOOKS = 0.5
Task = TypeVar("Task")
Result = TypeVar("Result")
_function: Callable  # the function of this worker process


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], nj: int
) -> Iterator[Result]:
    """Yield `function(task)` as tasks finish, on `nj` processes of `OMP_NUM_THREADS` threads.

    Processes are forked, so they share the caller's models. Before the call, torch must not have
    computed on several threads. With nj = 1 the caller's process does the work.
    """
    nj = min(nj, len(tasks))
    if nj <= 1:
        yield from map(function, tasks)
        return
    threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
    fork = multiprocessing.get_context("fork")
    # Workers inherit the function. Pickling it would copy its models for every work item.
    inherited = (function, threads, os.getpid())
    others = set(multiprocessing.active_children())
    with _left_alone_by_gc(), ProcessPoolExecutor(nj, fork, _start_worker, inherited) as pool:
        futures = [pool.submit(_call, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise PamError(
                "a worker process was killed, perhaps for lack of memory: lower --nj; "
                "the same command resumes"
            ) from error
        except KeyboardInterrupt:  # Ctrl-C does not reach the workers' sessions
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _left_alone_by_gc() -> Iterator[None]:
    """Freeze the garbage collector, whose writes would copy the memory that workers share."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _start_worker(function: Callable, threads: int, parent: int) -> None:
    global _function
    _function = function
    # Linux shares a busy machine fairly among sessions (autogroup): in one session, two workers
    # beside one other busy process would have half of two cores, not two thirds.
    os.setsid()
    if torch := sys.modules.get("torch"):  # audio alone does not load it
        torch.set_num_threads(threads)
    end_with_parent(parent)


def end_with_parent(parent: int) -> None:
    """End this process when its parent, `parent`, ends."""
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _call(task: Task) -> Result:
    return _function(task)


def _die_with(parent: int) -> None:
    """End this worker if its parent was killed: it would wait for work forever."""
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
