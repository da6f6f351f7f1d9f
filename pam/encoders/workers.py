"""Runs independent tasks in a few processes, and says so when one of them is killed."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

from pam.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


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
    with ProcessPoolExecutor(nj, fork, torch.set_num_threads, (threads,)) as pool:
        futures = [pool.submit(function, task) for task in tasks]
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
