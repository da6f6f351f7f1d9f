"""What the preparations of corpora share: a part of a corpus, and counts that can be trusted."""

import logging
from collections.abc import Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def spread(items: Sequence[Item], count: int | None) -> Sequence[Item]:
    """`count` of the items at even distances; all where there are no more, or for None."""
    if count is None or count >= len(items):
        return items
    return [items[n * len(items) // count] for n in range(count)]


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
