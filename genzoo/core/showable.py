"""Names that others chose, made fit to be shown: on a terminal, in a table, in JSON, on a page and in a plot.

A folder may be called almost anything: with line ends, with codes that move a terminal's cursor or turn the direction
of writing, with bytes that are no text. What is shown passes through here; what is opened stays as it is.
"""

import re
import unicodedata
from typing import Any

_SURROGATES = re.compile("[\ud800-\udfff]")
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

LONGEST = 200
"""Characters of a name that are shown."""

# controls, marks of direction, surrogates, line ends
_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


def showable(name: object, longest: int = LONGEST) -> str:
    r"""`name` as one line of text that UTF-8 can hold; what cannot be seen is written as an escape.

    >>> showable("caf\udce9\n\x1b[31m")
    'caf\\xe9\\n\\x1b[31m'

    Of names that are too long the middle is left out.

    >>> showable("a" * 20, longest=9)
    'aaa...aaa'
    """
    text = "".join(_escaped(c) if unicodedata.category(c) in _HIDDEN else c for c in str(name))
    if len(text) <= longest:
        return text
    kept = max(2, longest - 3)
    return f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"


def plot_text(name: object, longest: int = LONGEST) -> str:
    r"""`showable`, for matplotlib, to which dollar signs begin a formula.

    >>> plot_text("$5 and $6")
    '\\$5 and \\$6'
    """
    return showable(name, longest).replace("$", r"\$")


def storable(value: Any) -> Any:
    r"""Plain JSON whose texts UTF-8 can hold: bytes of names that are no text are written as escapes.

    >>> storable({"a\udce9": ["b", 1]})
    {'a\\xe9': ['b', 1]}
    """
    if isinstance(value, dict):
        return {storable(key): storable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [storable(inner) for inner in value]
    return _SURROGATES.sub(lambda found: _escaped(found.group()), value) if isinstance(value, str) else value


def page_text(text: str) -> str:
    """Text of many lines in which names may stand: what cannot be seen, but for line ends, is escaped."""
    return _UNSEEN.sub(lambda found: _escaped(found.group()), text)


def _escaped(character: str) -> str:
    """As Python writes it; a byte of a file's name that is no text as that byte."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
