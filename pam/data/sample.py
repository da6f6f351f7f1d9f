"""An even sample: indices at equal distances, not random ones."""


def even_places(count: int, total: int) -> list[int]:
    """`count` evenly spread indices below `total`, or all if there are no more than `count`."""
    count = min(count, total)
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]
