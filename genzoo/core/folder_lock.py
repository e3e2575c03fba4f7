"""One writer per folder: an advisory lock that the system lets go of when its holder ends, however it ends."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genzoo.core.errors import GenzooError
from genzoo.core.files import explained_errors, is_ours, make_folder

LOCK = "lock"
"""The file whose lock is held; without a holder it means nothing."""

_OPEN = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def only_writer(
    folder: Path, busy: str, *, name: str = LOCK, wait: bool = False, keep: bool = False
) -> Iterator[int | None]:
    """Holds the lock of `folder`, which is made where there is none, and gives its file descriptor.

    Threads, processes and those that inherit the descriptor count alike. `wait` waits for another holder. The file is
    removed in the end, unless `keep` says that others may go on holding it, or it marks a run that has only begun.
    None is given where the system has no such locks (Windows, some network folders). Raises `GenzooError` with the
    words `busy` where somebody else holds the lock, and where the folder cannot be written.
    """
    made = not folder.exists()
    with explained_errors(folder / name):
        make_folder(folder)
        handle = _locked(folder / name, busy, wait)
    try:
        yield handle
    finally:
        if handle is not None:
            begun = name == LOCK and not is_ours(folder) and not _holds_only(folder, name)
            if not keep and not begun:
                _remove_own(folder / name, handle)
            os.close(handle)
        if made:  # and nothing came of it
            with contextlib.suppress(OSError):
                folder.rmdir()


def _locked(path: Path, busy: str, wait: bool) -> int | None:
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(path).st_mode):
                os.unlink(path)  # a link or a pipe, which is no lock of ours
        handle = os.open(path, _OPEN, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            os.close(handle)
            if error.errno in _NO_LOCKS:
                return None
            raise GenzooError(busy) from None
        if _is_at(path, handle):
            return handle
        os.close(handle)  # the former holder has just removed it


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _holds_only(folder: Path, name: str) -> bool:
    try:
        return os.listdir(folder) == [name]
    except OSError:
        return False


def _remove_own(path: Path, handle: int) -> None:
    """Removes the lock file while it is still held; another one in its place stays."""
    with contextlib.suppress(OSError):
        if _is_at(path, handle):
            path.unlink()
