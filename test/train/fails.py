"""A program of several processes that fails after they have met: `fails.py HOW`."""

import sys

from pam.errors import PamError, run_main
from pam.train.processes import gathered, is_first, joined

FAILURES = {
    "wrong": PamError("what is wrong"),
    "one_wrong": PamError("what is wrong"),
    "stopped": SystemExit(143),
    "broken": OSError("no"),
}


def main():
    how = sys.argv[1]
    with joined(0):
        gathered([1])
        if is_first() and how == "one_wrong":
            gathered([2])  # waits for the other
        raise FAILURES[how]


run_main(main)
