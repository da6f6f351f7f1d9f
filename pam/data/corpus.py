"""Helpers for the preparation of corpora: sampling, checks of counts, lists of skipped items."""

import csv
import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TypeVar

from pam.atomic import write_text
from pam.errors import PamError

LEFT_OUT = "left_out.log"
Item = TypeVar("Item")
Used = TypeVar("Used")


def corpus_folder(value: str, variable: str, what: str, recipe: str) -> Path:
    """The folder of a corpus, absolute; `PamError` if `variable` of egs/RECIPE/db.sh names none.

    Args:
        value: what the variable says.
        what: the folder's content, for the message.
    """
    if not value:
        raise PamError(
            f"{variable} is not set: in egs/{recipe}/db.sh, name {what}; "
            "or leave its sets out with --train_sets, --dev_sets and --test_sets"
        )
    if not Path(value).is_dir():
        raise PamError(f"{value}: no such folder: correct {variable} in egs/{recipe}/db.sh")
    return Path(value).absolute()


def even_sample(items: Sequence[Item], count: int | None) -> Sequence[Item]:
    """`count` of the items, evenly spread: one from each of `count` equal parts.

    All items if there are no more than `count`, or if it is None. The choice within a part is
    random with a fixed seed: a fixed step could hit a period of the list, such as every tenth line
    of a list that repeats ten words.
    """
    if count is None or count >= len(items):
        return items
    draw = Random(count)
    ends = [n * len(items) // count for n in range(count + 1)]
    return [items[at + int(draw.random() * (end - at))] for at, end in pairwise(ends)]


def even_sample_of_usable(
    items: Sequence[Item], count: int | None, use: Callable[[Sequence[Item]], Mapping[Item, Used]]
) -> dict[Item, Used]:
    """The results of `use` for `count` items; further items replace those that it rejects."""
    used: dict[Item, Used] = {}
    wanted, untried = len(items) if count is None else count, items
    while untried and len(used) < wanted:
        chosen = even_sample(untried, wanted - len(used))
        used |= use(chosen)
        tried = set(chosen)
        untried = [item for item in untried if item not in tried]
    return used


def cluster_id(text: str) -> str:
    """A name as a value of `utt2cluster`, without spaces and slashes."""
    return "_".join(text.replace("/", " ").split())


def report_count(
    logger: logging.Logger, what: str, found: int, expected: int, things: str = "utterances"
) -> None:
    """Compare with the published count. A difference logs a warning with both numbers."""
    if found == expected:
        logger.info("%s: %d %s, as published", what, found, things)
    else:
        difference = f"{found - expected:+d}"
        logger.warning(
            "%s: expected %d %s, found %d (%s)", what, expected, things, found, difference
        )


def report_left_out(logger: logging.Logger, what: str, faults: Mapping[str, Sequence[str]]) -> None:
    """Log a warning for each reason to leave out utterances: their number and the first one."""
    for reason, found in faults.items():
        if found:
            logger.warning("%s: %d left out, %s: %s", what, len(found), reason, found[0])


def list_left_out(folder: Path, faults: Mapping[str, Sequence[str]]) -> None:
    """Write `folder`/left_out.log: one line per item left out, with reason, tab, item."""
    lines = [f"{reason}\t{one}\n" for reason, found in faults.items() for one in found]
    # Bytes of a file's name that are not UTF-8 are written as \udcXX.
    text = "".join(lines).encode("utf-8", "backslashreplace").decode()
    write_text(folder / LEFT_OUT, text)


@contextmanager
def reading(table: Path) -> Iterator[None]:
    """Turn errors of encoding or CSV syntax while `table` is read into a `PamError`."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise not_utf8(table) from error
    except csv.Error as error:
        raise PamError(f"{table}: {error}: check it for an unclosed quotation mark") from error


def not_utf8(table: Path) -> PamError:
    """The error for a file that is not UTF-8: the place of the first bad byte, and a remedy."""
    content = table.read_bytes()
    at = _first_undecodable(content)
    line, byte = content.count(b"\n", 0, at) + 1, content[at] if at < len(content) else 0
    command = f"iconv -f {_likely_encoding(content)} -t UTF-8 {shlex.quote(str(table))}"
    return PamError(
        f"{table}:{line}: not UTF-8 (byte 0x{byte:02x}): fetch it again, or convert it, as with: "
        f"{command} > converted"
    )


def _first_undecodable(content: bytes) -> int:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return len(content)


def _likely_encoding(content: bytes) -> str:
    return "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "LATIN1"
