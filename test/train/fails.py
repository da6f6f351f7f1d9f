"""A program of several processes that fails after they have met: `fails.py HOW`."""

import sys

from pam.errors import PamError, run_main
from pam.train.processes import gathered, joined

FAILURES = {
    "wrong": PamError("what is wrong"),
    "stopped": SystemExit(143),
    "broken": OSError("no"),
}


def main():
    with joined(0):
        gathered([1])
        raise FAILURES[sys.argv[1]]


run_main(main)
