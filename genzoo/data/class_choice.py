"""Classes by their names: which numbers a person means, and how names are told.

A name is the name of a class folder, or of a class of a known source ("ankle boot"); a number is a class's place. Where
a name is a number, the name counts: of the folders 10, 20 and 30 the class "20" is number 1.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass

from genzoo.core.errors import GenzooError
from genzoo.core.showable import showable

MOST_TOLD = 30
"""Classes of a numbering that are written out."""


@dataclass(frozen=True)
class ChosenClasses:
    """The numbers of the classes that were asked for, and remarks on how they were understood, a line each."""

    numbers: tuple[int, ...]
    remarks: tuple[str, ...] = ()


def choose_classes(chosen: str | Sequence[str | int], names: Sequence[str], count: int) -> ChosenClasses:
    """The classes that `chosen` names: texts and numbers, or one text with commas between them.

    In such a text a name with a comma stands in double quotes. `names` are those of the `count` classes in the order of
    their numbers, () where they have none.

    >>> choose_classes('dog,"red, big"', ["cat", "dog", "red, big"], 3).numbers
    (1, 2)
    >>> choose_classes("2", ["0", "1", "10", "2"], 4)
    ChosenClasses(numbers=(3,), remarks=('class 2 is the one called 2, which is number 3',))

    Raises `GenzooError` with the numbering for anything that is no class.
    """
    wanted = _parts(chosen) if isinstance(chosen, str) else list(chosen)
    if not wanted:
        raise GenzooError("no class is named: name one, or several with commas between them")
    found, remarks = [], []
    for part in wanted:
        number, remark = _number(part, [showable(name) for name in names], count)
        found.append(number)
        remarks += [] if remark is None else [remark]
    return ChosenClasses(tuple(found), tuple(dict.fromkeys(remarks)))


def numbering(names: Sequence[str], count: int) -> str:
    """Which number each class has.

    >>> numbering(["cat", "dog"], 2), numbering([], 10)
    ('0 .. 1 (0: cat, 1: dog)', '0 .. 9')
    """
    if not names:
        return f"0 .. {count - 1}"
    told = [f"{i}: {showable(name, 40)}" for i, name in enumerate(names[:MOST_TOLD])]
    more = len(names) - len(told)
    return f"0 .. {count - 1} ({', '.join(told)}{f' and {more} more' if more > 0 else ''})"


def joined(names: Sequence[str]) -> str:
    """Names as one text that `choose_classes` takes apart again.

    >>> joined(["cat", "red, big"])
    'cat,"red, big"'
    """
    quoted = ('"' + name.replace('"', '""') + '"' if _needs_quotes(name) else name for name in names)
    return ",".join(quoted)


def _needs_quotes(name: str) -> bool:
    return not name or any(c in name for c in ',"') or name != name.strip()


def _parts(text: str) -> list[str | int]:
    try:
        (row,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:
        raise GenzooError(
            f"classes {showable(text)!r} cannot be read ({error or 'no line'}): put commas between them"
        ) from error
    return list(row)


def _number(part: str | int, names: Sequence[str], count: int) -> tuple[int, str | None]:
    """The number of one class, and what is to be said of it."""
    if isinstance(part, bool) or not isinstance(part, (str, int)):
        raise GenzooError(f"a class is a name or a number, got {type(part).__name__}")
    if isinstance(part, int):
        return _in_range(part, names, count), None
    name = _named(part, names)
    number = _as_number(part)
    if name is not None:
        doubtful = number is not None and number != name and 0 <= number < count
        return (
            name,
            f"class {part.strip()} is the one called {names[name]}, which is number {name}" * doubtful
            or None,
        )
    if number is None:
        raise GenzooError(_unknown(part, names, count))
    chosen = _in_range(number, names, count)
    return chosen, f"class {chosen} is {names[chosen]}" if chosen < len(names) else None


def _named(part: str, names: Sequence[str]) -> int | None:
    """By the name as it is; else without regard to upper case and `_` for a blank, where that is one class alone."""
    for exact in (showable(part), showable(part).strip()):
        if exact in names:
            return list(names).index(exact)
    alike = [i for i, name in enumerate(names) if _plain(name) == _plain(showable(part))]
    return alike[0] if len(alike) == 1 else None


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _as_number(part: str) -> int | None:
    text = part.strip()
    return int(text) if text.lstrip("-").isdecimal() and text.isascii() and len(text) < 10 else None


def _in_range(number: int, names: Sequence[str], count: int) -> int:
    if not 0 <= number < count:
        raise GenzooError(_unknown(str(number), names, count))
    return number


def _unknown(part: str, names: Sequence[str], count: int) -> str:
    how = ", by name or number, several with commas" if names else ", several with commas"
    return f"{showable(part, 60)!r} is no class of this model: choose {numbering(names, count)}{how}"
