"""What the preparations of corpora share: a part of a corpus, and counts that can be trusted."""

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
from pam.errors import UserError

LEFT_OUT = "left_out.log"
Item = TypeVar("Item")
Used = TypeVar("Used")


def even_sample(items: Sequence[Item], count: int | None) -> Sequence[Item]:
    """`count` of the items, one of each of as many equal parts; all where there are no more, or
    for None.

    Which one of a part is drawn, always the same: every tenth line of a file that repeats ten
    words would be the same word again and again.
    """
    if count is None or count >= len(items):
        return items
    draw = Random(count)
    ends = [n * len(items) // count for n in range(count + 1)]
    return [items[at + int(draw.random() * (end - at))] for at, end in pairwise(ends)]


def even_sample_of_usable(
    items: Sequence[Item], count: int | None, use: Callable[[Sequence[Item]], Mapping[Item, Used]]
) -> dict[Item, Used]:
    """What `use` makes of `count` of the items; more are drawn for those that it cannot use."""
    used: dict[Item, Used] = {}
    wanted, untried = len(items) if count is None else count, items
    while untried and len(used) < wanted:
        chosen = even_sample(untried, wanted - len(used))
        used |= use(chosen)
        tried = set(chosen)
        untried = [item for item in untried if item not in tried]
    return used


def cluster_id(text: str) -> str:
    """A name as an entry of `utt2cluster`: no spaces, no slashes."""
    return "_".join(text.replace("/", " ").split())


def report_count(
    logger: logging.Logger, what: str, found: int, expected: int, things: str = "utterances"
) -> None:
    """Compare with the published count: a difference is a warning, with both numbers."""
    if found == expected:
        logger.info("%s: %d %s, as published", what, found, things)
    else:
        difference = f"{found - expected:+d}"
        logger.warning(
            "%s: expected %d %s, found %d (%s)", what, expected, things, found, difference
        )


def report_left_out(logger: logging.Logger, what: str, faults: Mapping[str, Sequence[str]]) -> None:
    """A warning for each reason for which utterances are left out: how many, and the first."""
    for reason, found in faults.items():
        if found:
            logger.warning("%s: %d left out, %s: %s", what, len(found), reason, found[0])


def list_left_out(folder: Path, faults: Mapping[str, Sequence[str]]) -> None:
    """Write `folder`/left_out.log: reason, tab, what is left out for it."""
    lines = [f"{reason}\t{one}\n" for reason, found in faults.items() for one in found]
    # Bytes of a file's name that are no UTF-8 are shown as \udcXX.
    text = "".join(lines).encode("utf-8", "backslashreplace").decode()
    write_text(folder / LEFT_OUT, text)


@contextmanager
def reading(table: Path) -> Iterator[None]:
    """Turn what is no text, or no CSV, while `table` is read into a `UserError`."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise not_utf8(table) from error
    except csv.Error as error:
        raise UserError(f"{table}: {error}: is a quotation mark not closed? mend it") from error


def not_utf8(table: Path) -> UserError:
    """Where a file that could not be decoded goes wrong, and how to convert it."""
    content = table.read_bytes()
    at = _first_undecodable(content)
    line, byte = content.count(b"\n", 0, at) + 1, content[at] if at < len(content) else 0
    command = f"iconv -f {_likely_encoding(content)} -t UTF-8 {shlex.quote(str(table))}"
    return UserError(
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
