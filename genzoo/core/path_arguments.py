"""Paths as arguments: what can be none, and what the system says of one, in one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genzoo.core.bounds import shown
from genzoo.core.errors import GenzooError, InvalidValue

LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes of a file's name and of a path, by the limits of the usual systems."""
MOST_PARTS = 256
"""Folders in a path: Python makes them by a function that calls itself for each."""


def path_of(value: Any, what: str) -> Path:
    """`value`, an argument called `what`, as a path. Raises `InvalidValue` where no file can have it."""
    if not isinstance(value, (str, os.PathLike)) or isinstance(value, bytes):
        raise InvalidValue(f"{what} must be a path, got {shown(value)}")
    text = os.fspath(value)
    if not is_system_text(text) or not text.strip():
        raise InvalidValue(f"{what} must be a path, got {shown(text)}")
    if is_too_long(text):
        raise InvalidValue(f"{what} holds a name that is too long for a file: {shown(text)}")
    return Path(text)


def is_system_text(text: Any) -> bool:
    """Whether the system could be given this text: it has no NUL, and no half of a pair of surrogates."""
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def real_path(path: Path) -> Path:
    """The whole of `path`, links followed as far as they lead somewhere: a ring of links is left as it is.

    `Path.resolve` raises an error over such a ring, and another one from version to version of Python.
    """
    return Path(os.path.realpath(path))


def is_too_long(text: str) -> bool:
    """Whether a part of a path, or the whole of it, has more bytes than systems take, or it has too many parts."""
    raw = text.encode("utf-8", "surrogatepass")
    parts = raw.split(b"/")
    return len(raw) > LONGEST_PATH or max(map(len, parts)) > LONGEST_NAME or len(parts) > MOST_PARTS


def check_can_be_made(path: Path) -> None:
    """Raises `GenzooError` where `path`, a file or folder, could not be made where it is to lie.

    It is asked before what takes long; what happens later is told when it does.
    """
    above = next(folder for folder in Path(os.path.abspath(path)).parents if os.path.lexists(folder))
    if not above.is_dir():
        raise GenzooError(f"cannot write {path}: {above} is no folder; choose another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise GenzooError(f"cannot write {path}: {above} is read-only; choose another place")


@contextmanager
def told_by_the_system() -> Iterator[None]:
    """What the system refuses becomes a `GenzooError` of one line."""
    try:
        yield
    except OSError as error:
        place = "" if error.filename is None else f"{shown(os.fsdecode(error.filename))[1:-1]}: "
        raise GenzooError(f"{place}{error.strerror or error}") from error
