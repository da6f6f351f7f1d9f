"""An even sample: every n-th element, not chosen by chance."""


def even_places(count: int, total: int) -> list[int]:
    """The places of an even sample: `count` of `total`, or all of them."""
    count = min(count, total)
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]
