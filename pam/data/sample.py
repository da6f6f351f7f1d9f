"""An even sample: chosen by place, not by chance."""


def evenly(count: int, total: int) -> list[int]:
    """`count` places of `total`, or all of them, evenly spread."""
    count = min(count, total)
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]
