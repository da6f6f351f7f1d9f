"""The largest batch that fits into the memory, by trial (`pam.train.trial`).

The number of clips of a batch doubles until it does not fit; then the gap is halved. Clips keep the
length that the configuration allows: batch.max_frames / batch.max_utts.
"""

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from pam.log import get_logger
from pam.train.memory import GIB
from pam.train.trial import Trial, run_trial

MOST_ROWS = 4096
CLOSE = 1.1  # rows that do not fit, over those that do

logger = get_logger(__name__)


def largest_rows(first: int, fits: Callable[[int], bool]) -> int:
    """The largest number of rows that fits, within a tenth; 0 if one row does not."""
    good, bad, rows = 0, MOST_ROWS + 1, first
    while good < rows < bad:
        if fits(rows):
            good = rows
        else:
            bad = rows
        if bad <= MOST_ROWS and bad <= max(CLOSE * good, good + 1):
            break
        rows = 2 * good if bad > MOST_ROWS else (good + bad) // 2
    return good


def with_rows(config: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The configuration with batches of `rows` clips of the same length."""
    length = config["batch"]["max_frames"] // config["batch"]["max_utts"]
    batch = {"max_utts": rows, "max_frames": rows * length}
    return {**config, "batch": {**config["batch"], **batch}}


def trials(config: Mapping[str, Any], device: str, limit: int | None) -> dict[int, Trial | None]:
    """{clips: what a step took; None if it does not fit} of all trials. `limit`: bytes of a CPU."""
    found: dict[int, Trial | None] = {}

    def fits(rows: int) -> bool:
        found[rows] = taken = in_process(with_rows(config, rows), device, limit)
        what = f"{taken.peak / GIB:.2f} GiB, {taken.seconds:.2f} s" if taken else "does not fit"
        logger.info("%d clips: %s", rows, what)
        return taken is not None

    largest_rows(config["batch"]["max_utts"], fits)
    return found


def in_process(config: Mapping[str, Any], device: str, limit: int | None) -> Trial | None:
    """A trial in a process of its own, so that memory that is used up harms no other."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        try:
            return pool.submit(run_trial, config, device, limit).result()
        except BrokenProcessPool:  # Linux ended it, for lack of memory
            return None
