"""Parts of a sequence."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def in_chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    values = iter(values)
    while some := list(islice(values, size)):
        yield some
