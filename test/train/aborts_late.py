"""A program of several processes, each of which would abort in Python's finalisation."""

import os

from pam.train.processes import joined, rank


class Late:
    def __del__(self):
        os.abort()


late = Late()
with joined(0):
    print(rank(), end="")
