"""What the preparations of corpora share: a part of a corpus, and counts that can be trusted."""

import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pam.atomic import write_text
from pam.errors import UserError

LEFT_OUT = "left_out.log"
Item = TypeVar("Item")


def spread(items: Sequence[Item], count: int | None) -> Sequence[Item]:
    """`count` of the items at even distances; all where there are no more, or for None."""
    if count is None or count >= len(items):
        return items
    return [items[n * len(items) // count] for n in range(count)]


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
    write_text(folder / LEFT_OUT, "".join(lines))


@contextmanager
def reading(table: Path) -> Iterator[None]:
    """Turn what is no text, or no CSV, while `table` is read into a `UserError`."""
    try:
        yield
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte 0x{error.object[error.start]:02x})"
        raise UserError(f"{table}: {reason}: fetch it again or save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{table}: {error}: is a quotation mark not closed? mend it") from error
