"""Files written so that at any moment the whole old or the whole new one is there."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genzoo.core.errors import GenzooError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Writes `data` to `path` so that at any moment the whole old or the whole new file is there.

    Raises `GenzooError` where the disk is full or the folder cannot be written; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with explained_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # interrupts too: leave no half-written file behind
            _remove(temporary)
            raise
        _sync_folder(path.parent)


@contextmanager
def explained_errors(path: Path) -> Iterator[None]:
    """Turns a failure to write `path` into a `GenzooError` of one line."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            message = f"disk full while saving {path}; the last good checkpoint is kept"
        else:
            message = f"cannot write {path}: {error.strerror or error}"
        raise GenzooError(message) from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the first error says more


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable; Windows cannot open folders and needs no such thing."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
