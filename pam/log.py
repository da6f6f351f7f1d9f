"""Log lines, and progress that suits both a terminal and a log file."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 30.0


def get_logger(name: str) -> logging.Logger:
    """A logger that writes date, module and line to stderr (set up once for the process)."""
    root = logging.getLogger()
    if not root.handlers:
        logging.basicConfig(
            level=logging.INFO,
            format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s",
        )
    return logging.getLogger(name)


def progress(items: Iterable[T], total: int, desc: str) -> Iterator[T]:
    """Pass `items` through: a bar on a terminal, a log line every 30 s elsewhere."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=desc)
        return
    logger = get_logger(__name__)
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES:
            logger.info("%s: %d / %d (%.0f s)", desc, done, total, now - start)
            last = now
        yield item
