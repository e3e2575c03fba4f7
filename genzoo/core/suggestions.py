"""What somebody may have meant who typed a name that is none."""

import difflib
from collections.abc import Iterable

CUTOFF = 0.6
"""Likeness, 0 to 1, from which on a name is worth suggesting."""


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The entry of `names` most like `name`; None where none is near.

    >>> nearest("--chanels", ["--blocks", "--channels"]), nearest("--version", ["train", "sample"])
    ('--channels', None)
    """
    return next(iter(difflib.get_close_matches(name[:200], list(names), n=1, cutoff=CUTOFF)), None)


def suggestion(name: str, names: Iterable[str]) -> str:
    """The end of a message about `name`: the nearest of `names`, else all of them.

    >>> suggestion("digitz", ["digits", "mnist"]), suggestion("x", ["digits", "mnist"])
    ("did you mean 'digits'?", 'choose one of digits, mnist')
    """
    names = list(names)
    near = nearest(name, names)
    return f"choose one of {', '.join(names)}" if near is None else f"did you mean {near!r}?"
