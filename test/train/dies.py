"""A training whose process dies after its N-th midpoint: `dies.py N OPTION...`."""

import itertools
import os
import sys

from pam.bin.train import main
from pam.errors import run_main
from pam.train.midpoint import Midpoint

save, calls, last = Midpoint.save, itertools.count(1), int(sys.argv.pop(1))


def die(self, *args):
    save(self, *args)
    if next(calls) == last:
        os._exit(9)


Midpoint.save = die
run_main(main)
