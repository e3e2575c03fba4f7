"""Which pictures lie below a folder, and what lies there that is passed over.

Regular files only: a pipe would hang whoever opens it. Links to folders are followed, within limits: one may lead to
the folder that it lies in, or through a whole disk.
"""

import os
import stat
from collections import Counter, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from genzoo.core.errors import GenzooError
from genzoo.core.path_arguments import real_path
from genzoo.core.showable import showable

MOST_FOLDERS = 100_000
"""Folders that are looked into."""

MOST_LINKED_FOLDERS, MOST_LINKED_OTHERS = 10_000, 100_000
"""Folders, and files that are no pictures, that are looked at where links lead out of the folder."""

MOST_TOLD = 6
"""Kinds of files, and links, that a remark names."""

_NO_PLACES_OF_PICTURES = tuple(map(Path, ("/proc", "/sys", "/dev")))


@dataclass(frozen=True)
class Listing:
    """Pictures below a folder, relative to it and in order; `remarks` say what was passed over, a line each.

    `repeated` are links to folders with the folder, as it is called elsewhere, that each leads to.
    """

    files: tuple[Path, ...]
    remarks: tuple[str, ...] = ()
    repeated: tuple[tuple[Path, Path], ...] = ()


def list_pictures(root: Path, suffixes: Collection[str], ignored: Collection[str] = ()) -> Listing:
    """The regular files below `root` whose suffix (in lower case) is among `suffixes`; hidden ones are left out.

    Links to files and folders are followed, each folder is looked into once. Passed over, and told, are links that
    lead to where their own folder lies, into a folder that was read already, or nowhere, as well as files of other
    kinds but those called as in `ignored`.

    Raises `GenzooError` where a folder cannot be read, or where links lead to so many that no one meant it.
    """
    walk = _Walk(root, frozenset(suffixes), frozenset(ignored))
    files = tuple(sorted(walk.files()))
    return Listing(files, tuple(walk.remarks()), tuple(walk.repeated))


@dataclass
class _Walk:
    """One walk through a folder: what is still to be looked into, and what was passed over so far."""

    root: Path
    suffixes: frozenset[str]
    ignored: frozenset[str]
    others: Counter[str] = field(default_factory=Counter)
    irregular: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    upward: list[Path] = field(default_factory=list)
    repeated: list[tuple[Path, Path]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.real = real_path(self.root)
        self.waiting: deque[Path] = deque([Path()])
        self.links: deque[Path] = deque()
        self.seen: dict[tuple[int, int], Path] = {}
        self.linked_folders = self.linked_others = 0

    def files(self) -> Iterator[Path]:
        """Folders first and links to folders last, so that a folder is known by its own name where it has one."""
        outside: Path | None = None
        while self.waiting or self.links:
            if self.waiting:
                here = self.waiting.popleft()
            else:
                here = self.links.popleft()
                target = self._target(here)
                if target is None:
                    continue
                outside = None if target.is_relative_to(self.real) else here
            if self._is_new(here):
                self._count_folder(outside)
                yield from self._inside(here, outside)

    def _target(self, link: Path) -> Path | None:
        """Where a link to a folder leads; None where it is not followed."""
        try:
            target = (self.root / link).resolve(strict=True)
        except (OSError, RuntimeError):  # moved away meanwhile, or a ring of links
            self.broken.append(link)
            return None
        if self.real.is_relative_to(target) or any(
            target.is_relative_to(place) for place in _NO_PLACES_OF_PICTURES
        ):
            self.upward.append(link)
            return None
        return target

    def _is_new(self, folder: Path) -> bool:
        try:
            status = os.stat(self.root / folder)
        except OSError as error:
            raise _unreadable(self.root / folder, error) from error
        known = self.seen.setdefault((status.st_dev, status.st_ino), folder)
        if known != folder:
            self.repeated.append((folder, known))
        return known == folder

    def _count_folder(self, outside: Path | None) -> None:
        self.linked_folders += outside is not None
        if len(self.seen) > MOST_FOLDERS:
            raise GenzooError(
                f"{showable(self.root)} holds more than {MOST_FOLDERS:,} folders: name the one with the pictures"
            )
        if outside is not None and self.linked_folders > MOST_LINKED_FOLDERS:
            raise _too_many(self.root / outside, f"{MOST_LINKED_FOLDERS:,} folders")

    def _inside(self, folder: Path, outside: Path | None) -> Iterator[Path]:
        try:
            with os.scandir(self.root / folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise _unreadable(self.root / folder, error) from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            try:
                mode = entry.stat().st_mode
            except OSError:  # a link to nothing, or a ring of links
                self.broken.append(path)
                continue
            if stat.S_ISDIR(mode):
                (self.links if entry.is_symlink() else self.waiting).append(path)
            elif path.suffix.lower() not in self.suffixes:
                self._other(path, outside)
            elif stat.S_ISREG(mode):
                yield path
            else:
                self.irregular.append(path)

    def _other(self, path: Path, outside: Path | None) -> None:
        if path.as_posix() in self.ignored:
            return
        self.others[path.suffix.lower() or "without suffix"] += 1
        self.linked_others += outside is not None
        if outside is not None and self.linked_others > MOST_LINKED_OTHERS:
            raise _too_many(
                self.root / outside, f"{MOST_LINKED_OTHERS:,} files that are no pictures it can read"
            )

    def remarks(self) -> Iterator[str]:
        """A line for each reason to pass something over."""
        if self.others:
            kinds = [f"{count:,} {showable(kind, 20)}" for kind, count in self.others.most_common(MOST_TOLD)]
            more = len(self.others) - len(kinds)
            others = f" and {more} other kinds" if more else ""
            yield f"passed over files that are not read as pictures: {', '.join(kinds)}{others}"
        if self.irregular:
            yield f"passed over what is no regular file: {told(self.irregular)}"
        if self.broken:
            yield f"passed over links that lead nowhere: {told(self.broken)}"
        if self.upward:
            yield f"passed over links to a folder that holds this one, or to the system's own: {told(self.upward)}"
        if self.repeated:
            pairs = [
                f"{showable(link)} (the same as {showable(known)})"
                for link, known in self.repeated[:MOST_TOLD]
            ]
            more = len(self.repeated) - len(pairs)
            yield f"read once what several names lead to: {', '.join(pairs)}{f' and {more} more' if more else ''}"


def expanded(path: str | Path) -> Path:
    """`path` with `~` replaced by a home folder, where there is one of that name.

    >>> expanded("~nobody-of-this-name/pictures").parts[0]
    '~nobody-of-this-name'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def told(paths: Collection[object]) -> str:
    """The first of some names, and how many more there are.

    >>> told(["a", "b"])
    'a, b'
    """
    first = [showable(path) for path in list(paths)[:MOST_TOLD]]
    more = len(paths) - len(first)
    return ", ".join(first) + (f" and {more:,} more" if more else "")


def _too_many(link: Path, what: str) -> GenzooError:
    return GenzooError(
        f"the link {showable(link)} leads to more than {what}: link to the folder of pictures alone"
    )


def _unreadable(folder: Path, error: OSError) -> GenzooError:
    reason = (error.strerror or str(error)).lower()
    return GenzooError(
        f"the folder {showable(folder)} cannot be read ({reason}): change its rights, or remove it"
    )
