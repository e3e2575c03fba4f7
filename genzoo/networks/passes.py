"""How much goes through a network at once outside of training: bounds memory."""

from collections.abc import Iterator

MOST_ROWS = 256
MOST_PARAMETERS = 2**23


def slices(n: int, size: int) -> Iterator[slice]:
    """0 .. n-1 in parts of at most `size`.

    >>> list(slices(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def decodings_per_pass(parameters: int) -> int:
    """How many images of so many output `parameters` each are decoded at once.

    >>> decodings_per_pass(784), decodings_per_pass(3072 * 30)
    (256, 91)
    """
    return max(1, min(MOST_ROWS, MOST_PARAMETERS // parameters))
