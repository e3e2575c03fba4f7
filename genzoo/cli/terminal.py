"""Standard output and error as they are: terminals that lack characters, pipes whose reader has gone. Free of torch."""

import codecs
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

PLAIN = {
    "±": "+/-", "×": "x", "→": "->", "≤": "<=", "≥": ">=", "…": "...", "–": "-", "—": "-", "·": ".", "’": "'",
    "“": '"', "”": '"', "²": "^2", "µ": "u",
}  # fmt: skip
"""What stands for a character that a terminal cannot show; for all others a question mark."""

HANDLER = "genzoo-plain"
"""The name of the error handler of codecs."""


def plain(text: str, encoding: str | None) -> str:
    """`text` in characters that `encoding` has.

    >>> plain("1.2 ± 0.3 café", "ascii")
    '1.2 +/- 0.3 caf?'
    """
    encoding = encoding or "utf-8"
    return text.encode(encoding, HANDLER).decode(encoding)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain_character, error.object[error.start : error.end])), error.end


def _plain_character(character: str) -> str:
    if "\u2500" <= character <= "\u257f":  # the lines of tables
        return {"─": "-", "━": "-", "═": "-", "│": "|", "┃": "|", "║": "|"}.get(character, "+")
    return PLAIN.get(character, "?")


codecs.register_error(HANDLER, _replaced)


@contextlib.contextmanager
def tolerant_streams() -> Iterator[None]:
    """Inside, what stdout and stderr cannot show is replaced; names of files may hold bytes that are no characters."""
    former: list[tuple[Any, str]] = []
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) in ("strict", "surrogateescape") and hasattr(
            stream, "reconfigure"
        ):
            former.append((stream, stream.errors))
            stream.reconfigure(errors=HANDLER)
    try:
        yield
    finally:
        for stream, errors in former:
            with contextlib.suppress(OSError, ValueError):  # it was closed, or its reader has gone
                stream.reconfigure(errors=errors)


def forget_output() -> None:
    """After a pipe's reader has gone: whatever is still to be written goes nowhere, so that the end is quiet."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.close()  # which tries once more, and is closed then
