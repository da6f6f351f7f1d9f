"""A program of pam.bin (the first argument) of which only the first process writes files.

Two processes that write the same file take each other's unfinished file away.
"""

import importlib
import os
import sys
from pathlib import Path

from pam.errors import run_main

if os.environ["RANK"] != "0":

    def replace(path: Path, target: Path) -> None:
        raise AssertionError(f"process {os.environ['RANK']} writes {target}")

    Path.replace = replace

if __name__ == "__main__":
    program = sys.argv.pop(1)
    run_main(importlib.import_module(f"pam.bin.{program}").main)
