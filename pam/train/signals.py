"""Signals that ask a training to stop: SIGTERM, and SIGUSR1, which Slurm sends before a time limit.

The training finishes its update and writes midpoint.pth (`pam.train.midpoint`); until then the
processes that read its data live on.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
STOPPED = tuple(128 + number for number in SIGNALS)  # exit statuses: the same command resumes
SECONDS_TO_SAVE = 45  # utils/run.py kills after 60


class StopRequest:
    """The number of the first signal of `SIGNALS`; 0 until one arrives."""

    def __init__(self) -> None:
        self.number = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Context that catches the signals. Only the main thread of a process can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def receive(self, number: int, _frame: Any) -> None:
        self.number = self.number or number


def outlive_signals(_worker: int) -> None:
    """Let a process of a DataLoader read on for a while after a signal.

    Slurm sends a signal to all processes of a job, and the last update needs its batches. Without
    a signal these processes end with the training.
    """

    def end_later(_number: int, _frame: Any) -> None:
        timer = threading.Timer(SECONDS_TO_SAVE, os._exit, [0])
        timer.daemon = True
        timer.start()

    for number in SIGNALS:
        signal.signal(number, end_later)
