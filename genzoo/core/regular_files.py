"""Files that others may have made, opened: regular ones only, of a limited size.

A name in a folder may lead to a pipe, which hangs whoever opens it, to a device without end, or through a link to
anywhere. Whatever the package reads from disk it opens here.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from genzoo.core.errors import GenzooError

MOST_BYTES = 2**26
"""Of a text that is read as a whole: 64 MiB."""
MOST_HASHED = 2**34
"""Of weights: 16 GiB, four thousand million parameters. A file may claim to be longer than any disk is large."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnreadableFile(GenzooError):
    """A file that cannot or should not be read; `reason` says why in a few words, the message names the file, too."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read: {reason}")
        self.reason = reason


def is_regular(path: Path) -> bool:
    """Whether there is a regular file, or a link to one; whatever else there is, or nothing, is none.

    >>> is_regular(Path("/dev/null")), is_regular(Path("no\\0name"))
    (False, False)
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def is_within(path: Path, folder: Path) -> bool:
    """Whether `path`, all links followed, lies below `folder`, all links followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a ring of links
        return False


@contextmanager
def open_regular(path: Path, most_bytes: int | None = None) -> Iterator[BinaryIO]:
    """The regular file `path`, opened for reading, of at most `most_bytes` bytes; links are followed.

    Raises `UnreadableFile` where there is none, where it may not be read, is larger, or is of another kind: nothing
    that could wait for ever is opened. Errors of the caller's own reading pass through.
    """
    try:
        _check_kind(path, os.stat(path), most_bytes)
        # a pipe that took the file's place since must not hang, nor a terminal take over
        flags = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY", "O_CLOEXEC"))
        handle = os.open(path, os.O_RDONLY | flags)
    except (OSError, ValueError) as error:
        raise UnreadableFile(path, _reason(error)) from error
    with open(handle, "rb") as file:
        _check_kind(path, os.fstat(handle), most_bytes)
        yield file


def read_regular(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The bytes of the regular file `path`. Raises `UnreadableFile` as `open_regular` does."""
    with open_regular(path, most_bytes) as file:
        try:
            content = file.read(most_bytes + 1)
        except (OSError, MemoryError) as error:
            raise UnreadableFile(path, _reason(error)) from error
    if len(content) > most_bytes:  # it has grown
        raise UnreadableFile(path, _too_large(len(content), most_bytes))
    return content


def sha256_of(path: Path) -> str:
    """The SHA-256 of the regular file `path` in hexadecimal digits, of `MOST_HASHED` bytes at most.

    Raises `UnreadableFile` as `open_regular` does.
    """
    digest = hashlib.sha256()
    with open_regular(path, MOST_HASHED) as file:
        try:
            while part := file.read(2**20):
                digest.update(part)
        except OSError as error:
            raise UnreadableFile(path, _reason(error)) from error
    return digest.hexdigest()


def _check_kind(path: Path, status: os.stat_result, most_bytes: int | None) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise UnreadableFile(path, f"it is {_KINDS.get(kind, 'of an unknown kind')} and no regular file")
    if most_bytes is not None and status.st_size > most_bytes:
        raise UnreadableFile(path, _too_large(status.st_size, most_bytes))


def _too_large(size: int, most: int) -> str:
    return f"it has {size / 2**20:.1f} MiB or more, at most {most / 2**20:.1f} are read"


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return (text or type(error).__name__).lower()
