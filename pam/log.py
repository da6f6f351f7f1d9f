"""Log lines, and progress that suits both a terminal and a log file."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

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
        logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request
    return logging.getLogger(name)


@contextmanager
def progress_bar(total: int, desc: str, done: int = 0) -> Iterator["tqdm"]:
    """A bar on a terminal, above which log lines appear. Elsewhere it shows nothing.

    `done` of the `total` items are complete at the start.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    if not sys.stderr.isatty():
        yield tqdm(disable=True)
        return
    with logging_redirect_tqdm(), tqdm(total=total, initial=done, desc=desc) as bar:
        yield bar


def progress(items: Iterable[T], total: int, desc: str) -> Iterator[T]:
    """Pass `items` through: a bar on a terminal, a log line every 30 s elsewhere."""
    logger = get_logger(__name__)
    start = last = time.monotonic()
    with progress_bar(total, desc) as bar:
        for done, item in enumerate(items):
            now = time.monotonic()
            if bar.disable and done and now - last > SECONDS_BETWEEN_LINES:
                eta = remaining(now - start, done, total - done)
                logger.info("%s: %d / %d (%.0f s, ETA %s)", desc, done, total, now - start, eta)
                last = now
            yield item
            bar.update()


def remaining(seconds: float, done: int, to_do: int) -> str:
    """The time that `to_do` items take if `done` items took `seconds`: hours:minutes:seconds."""
    return str(timedelta(seconds=round(seconds / done * to_do)))
