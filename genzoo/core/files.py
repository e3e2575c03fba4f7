"""The one place that writes files: whole or not at all, under names that nobody can foresee, never through a link.

A run folder may come from anywhere and hold links. What is written into one stays in it: a file that is a link is
replaced, a folder in it that is a link is refused. The folder itself, and those above it, are the user's choice.
"""

import errno
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from genzoo.core.errors import GenzooError

MARKS = {"config.json": ("format", "spec", "config"), "bakeoff.json": ("terms", "entrants")}
"""What makes a folder one of genzoo's: a file, and the fields that it has."""

MADE_BY = "genzoo"
"""How pictures and pages call their maker, so that a later one may take their place."""

_MAKER = "_made_by"  # the field of a folder's index that names its maker
_PNG_MARK = b"Software\x00" + MADE_BY.encode()
_PAGE_MARKS = (f'<meta name="generator" content="{MADE_BY}"'.encode(), b"<title>Which model is best for ")
_LOOKED_THROUGH = 4096  # bytes at the start of a file, in which it tells its maker
_MOST_BYTES = 2**24  # of a file that makes a folder one of genzoo's
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_END = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


# --- writing ---------------------------------------------------------------------------------------------------


def write_atomically(path: str | Path, data: bytes | memoryview, *, inside: Path | None = None) -> None:
    """Writes `data` to `path` so that at any moment the whole old or the whole new file is there.

    `inside` is the folder that must be there and that nothing may lead out of; None takes the run folder that `path`
    lies in (`home_of`), and where it lies in none missing folders are made. Raises `GenzooError` where the disk is
    full, the folder cannot be written or a link leads out of it; the old file stays.
    """
    path = Path(path)
    with explained_errors(path):
        make_folder(path.parent, inside=home_of(path) if inside is None else inside)
        temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")
        try:
            with os.fdopen(os.open(temporary, _NEW, 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # interrupts too: leave no half-written file behind
            _remove(temporary)
            raise
        _sync_folder(path.parent)


def write_product(path: str | Path, data: bytes, *, inside: Path | None = None) -> None:
    """As `write_atomically`, of a picture or a page, but never over a file that somebody else has made.

    What lies in a run folder, or names genzoo as its maker, may be overwritten. Raises `GenzooError` for other files.
    """
    check_product(path)
    write_atomically(path, data, inside=inside)


def check_product(path: str | Path) -> None:
    """Raises `GenzooError` where `path` is a file that `write_product` would refuse to overwrite."""
    path = Path(path)
    with explained_errors(path):
        if os.path.lexists(path) and home_of(path) is None and not _is_marked(path):
            raise GenzooError(f"{path} is there already and not of genzoo's making; name another file")


def write_folder(path: Path, write: Callable[[Path], Any], index: str) -> None:
    """What `write` puts into a folder of its own goes to the folder `path`, file by file, as in `write_atomically`.

    `index` is the JSON file among them that says what the folder is; it comes last and gets a field that names genzoo.
    Raises `GenzooError` where `path` holds anything but what an earlier call wrote, or cannot be written.
    """
    with explained_errors(path), tempfile.TemporaryDirectory() as place:
        source = Path(place)
        write(source)
        files = sorted(file.relative_to(source) for file in source.rglob("*") if file.is_file())
        _check_written(path, set(files), index)
        make_folder(path)
        for file in sorted(files, key=lambda file: file == Path(index)):
            data = (source / file).read_bytes()
            if file == Path(index):
                data = (json.dumps({**json.loads(data), _MAKER: MADE_BY}, indent=2) + "\n").encode()
            write_atomically(path / file, data, inside=path)


def _check_written(path: Path, files: set[Path], index: str) -> None:
    if os.path.lexists(path) and not path.is_dir():
        raise GenzooError(f"{path} is a file; choose another folder")
    others = {file.relative_to(path) for file in path.rglob("*") if file.is_symlink() or not file.is_dir()}
    if others and not _has_fields(path / index, [_MAKER]):
        raise GenzooError(f"{path} holds other files, such as {min(others)}; choose another folder")
    if others - files:
        raise GenzooError(f"{path} also holds {min(others - files)}; choose another folder")


@contextmanager
def appending(path: str | Path, *, inside: Path | None = None) -> Iterator[IO[str]]:
    """The text file `path`, made where there is none, to be written to at its end; links as in `write_atomically`."""
    path = Path(path)
    with explained_errors(path):
        make_folder(path.parent, inside=home_of(path) if inside is None else inside)
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            os.unlink(path)  # a link, or a pipe that would wait for a reader
        handle = os.open(path, _END if path.exists() else _END | _NEW, 0o666)
    with os.fdopen(handle, "a", encoding="utf-8") as file:
        yield file


def append_text(path: str | Path, text: str, *, inside: Path | None = None) -> None:
    """Writes `text` at the end of the file `path`; links and errors are as in `write_atomically`."""
    with explained_errors(Path(path)), appending(path, inside=inside) as file:
        file.write(text)


def make_folder(path: Path, *, inside: Path | None = None) -> None:
    """Makes the folder `path` where there is none; with `inside` that one must be there already, and nothing else may
    lead out of it.

    Raises `GenzooError` for a link below `inside`, and `OSError` where the folder cannot be made.
    """
    if inside is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    if not inside.is_dir():
        raise GenzooError(f"{inside} is gone: it was moved or deleted; nothing was written")
    folder = inside
    for part in path.absolute().relative_to(inside.absolute()).parts:
        folder = folder / part
        if part == ".." or folder.is_symlink():
            raise GenzooError(
                f"{folder} leads out of {inside}; put a folder in its place, nothing was written"
            )
        folder.mkdir(exist_ok=True)


def keep_aside(path: Path) -> Path:
    """Gives the file `path` the first name like NAME-damaged.SUFFIX that is free; returns where it is now.

    Raises `GenzooError` where that cannot be done.
    """
    names = (f"{path.stem}-damaged{n}{path.suffix}" for n in ("", *(f"-{k}" for k in range(2, 1000))))
    aside = next(place for name in names if not os.path.lexists(place := path.with_name(name)))
    with explained_errors(aside):
        os.rename(path, aside)
    return aside


# --- whose a file is -------------------------------------------------------------------------------------------


def home_of(path: str | Path) -> Path | None:
    """The run or bake-off folder that `path` lies in, the outermost one; None where it lies in none.

    Links in it cannot bring another one into play, since the outermost counts.
    """
    path = Path(path).absolute()
    for folder in reversed(path.parents):
        if is_ours(folder) and ".." not in path.relative_to(folder).parts:
            return folder
    return None


def is_ours(folder: Path) -> bool:
    """Whether `folder` is a run, a saved model or a bake-off, by the file that makes it one."""
    return any(_has_fields(folder / name, fields) for name, fields in MARKS.items())


def _has_fields(path: Path, fields: Iterable[str]) -> bool:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            return False
        if about.st_size > _MOST_BYTES:  # nobody's configuration, and nothing to read: take care
            return True
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and set(fields) <= content.keys()


def _is_marked(path: Path) -> bool:
    """Whether a file names genzoo as its maker; a link does not."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    with path.open("rb") as file:
        start = file.read(_LOOKED_THROUGH)
    if start.startswith(b"\x89PNG"):
        return _PNG_MARK in start
    return any(mark in start for mark in _PAGE_MARKS)


# --- what goes wrong -------------------------------------------------------------------------------------------


@contextmanager
def explained_errors(path: Path) -> Iterator[None]:
    """Turns a failure to write `path` into a `GenzooError` of one line."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            kept = "; the last good checkpoint is kept" if os.path.lexists(path) else ""
            message = f"disk full while saving {path}{kept}"
        else:
            message = f"cannot write {path}: {error.strerror or error}"
        raise GenzooError(message) from error


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Removes what writers of the files `names` in `folder` left behind when they were killed.

    Names may hold wildcards. No other process may be writing these files.
    """
    for name in names:
        for path in folder.glob(f".{name[:40]}.*.tmp"):
            _remove(path)


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
