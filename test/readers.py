"""Signals to the processes that read the data of a training. As a program: `pam.bin.train` whose
readers are killed, since PyTorch then raises errors wherever its process happens to be."""

import itertools
import multiprocessing
import os
import signal

from pam.bin.train import main
from pam.errors import run_main
from pam.train.midpoint import Midpoint


def signalling(number):
    """`Midpoint.agreed`, which sends them this signal after the first update."""
    agreed, calls = Midpoint.agreed, itertools.count()

    def agree(self):
        if next(calls) == 1:
            for child in multiprocessing.active_children():
                os.kill(child.pid, number)
        return agreed(self)

    return agree


if __name__ == "__main__":
    Midpoint.agreed = signalling(signal.SIGKILL)
    run_main(main)
