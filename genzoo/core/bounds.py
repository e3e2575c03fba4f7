"""What the fields of a configuration may hold, told by their types: the one check of values that are typed in, read or
passed in Python.

    width: Width = 64        # a whole number from 1 to 16384
    dropout: float = 0.0     # any finite number

Every dataclass that derives from `Configurable` is checked when it is made.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from genzoo.core.errors import InvalidValue


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; the lowest, or the highest, itself may be left out."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: Any) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        return above and (value < self.high if self.high_open else value <= self.high)

    def __str__(self) -> str:
        low, high = map(_plainly, (self.low, self.high))
        if self.low_open:
            return f"above {low} and {'below' if self.high_open else 'at most'} {high}"
        return f"from {low} to {'below ' if self.high_open else ''}{high}"


def _plainly(number: float) -> str:
    """Whole numbers with all their digits.

    >>> _plainly(2**63 - 1), _plainly(1e9), _plainly(0.25)
    ('9223372036854775807', '1000000000', '0.25')
    """
    return str(number) if isinstance(number, int) else f"{number:.15g}"


WHOLE, REAL = Range(-(2**53), 2**53), Range(-1e30, 1e30)
"""Of fields that say no more than `int` or `float`: what float64 holds exactly, and what float32 holds."""

LONGEST = 10_000
"""Of a field that holds many values, or a text."""

Width = Annotated[int, Range(1, 2**14)]
"""Channels, units, patches, components: what memory grows with."""
OptionalWidth = Annotated[int, Range(0, 2**14)]
"""As `Width`, 0: none of it."""
Depth = Annotated[int, Range(1, 1000)]
"""Blocks, layers, levels: what a network repeats."""
OptionalDepth = Annotated[int, Range(0, 1000)]
"""As `Depth`, 0: none of it."""
Many = Annotated[int, Range(1, 2**24)]
"""Images, codes, steps, draws."""
OptionalMany = Annotated[int, Range(0, 2**24)]
"""As `Many`, 0: none of it."""
Share = Annotated[float, Range(0, 1)]
"""A share or a probability."""
BelowOne = Annotated[float, Range(0, 1, high_open=True)]
"""A share that is not all."""
Seed = Annotated[int, Range(0, 2**63 - 1)]
"""What random generators take."""
Pixels = Annotated[int, Range(1, 2**14)]
"""The side of an image."""
Seconds = Annotated[float, Range(0, 1e9, low_open=True)]
"""A time, up to thirty years."""
Budgeted = Annotated[float, Range(0, 1e12, low_open=True)]
"""How much of something a run may take."""
Images = Annotated[int, Range(1, 2**31)]
"""A number of images."""
Positive = Annotated[float, Range(0, 1e12, low_open=True)]
"""Above 0."""
NotNegative = Annotated[float, Range(0, 1e12)]
"""0 or more."""

MOST_SECONDS = 1e9
"""Thirty years."""
SEEDS = Range(0, 2**63 - 1)
"""What random generators take."""


def check_fields(value: Any) -> None:
    """Raises `InvalidValue` over the first field of a dataclass instance that its type has no such value of."""
    for name, problem, given in problems_of(value):
        raise InvalidValue(f"{name} of {type(value).__name__} must be {problem}, got {shown(given)}")


def problems_of(value: Any) -> Iterator[tuple[str, str, Any]]:
    """The fields of a dataclass instance that hold what their types have not: name, what it must be, what it is."""
    for field in dataclasses.fields(value):
        given = getattr(value, field.name)
        problem = _problem(given, _hints(type(value)).get(field.name, Any))
        if problem is not None:
            yield field.name, problem, given


def check_field(kind: type, name: str, value: Any) -> None:
    """Raises `InvalidValue` unless the field `name` of the dataclass `kind` can hold the value."""
    problem = _problem(value, _hints(kind).get(name, Any))
    if problem is not None:
        raise InvalidValue(f"{name} of {kind.__name__} must be {problem}, got {shown(value)}")


def check_number(name: str, value: Any, allowed: Range, *, whole: bool = False) -> None:
    """Raises `InvalidValue` unless `value`, an argument called `name`, is such a number; `whole` ones only."""
    problem = _problem(value, Annotated[int if whole else float, allowed])
    if problem is not None:
        raise InvalidValue(f"{name} must be {problem}, got {shown(value)}")


def check_seed(seed: Any) -> None:
    """Raises `InvalidValue` unless random generators take the seed."""
    check_number("seed", seed, SEEDS, whole=True)


def shown(value: Any) -> str:
    """A value for a message: one line of bounded length.

    >>> shown("a" * 99)[-5:]
    'aa...'
    """
    try:
        text = " ".join(repr(value).split())
    except Exception as error:  # whatever the object's own repr raises
        text = f"a {type(value).__name__} that cannot be shown ({type(error).__name__})"
    return text if len(text) <= 80 else f"{text[:77]}..."


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    """The types of the fields; none where they name what this module cannot see (a class within a function, say)."""
    try:
        return get_type_hints(kind, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def _problem(value: Any, hint: Any) -> str | None:
    """What it must be, where it is no value of the type `hint`; None where it is, and for types that tell nothing."""
    allowed = None
    if get_origin(hint) is Annotated:
        hint, *more = get_args(hint)
        allowed = next((extra for extra in more if isinstance(extra, Range)), None)
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        problems = [_problem(value, part) for part in get_args(hint)]
        return None if None in problems else " or ".join(dict.fromkeys(p for p in problems if p))
    if origin is Literal:
        return None if value in get_args(hint) else " or ".join(map(repr, get_args(hint)))
    if origin is tuple:
        return _problem_of_tuple(value, get_args(hint))
    if hint in (int, float):
        return _problem_of_number(value, hint, allowed)
    if hint is str:
        return None if isinstance(value, str) and len(value) <= LONGEST else "a text"
    kind = NoneType if hint is None else origin or hint
    if dataclasses.is_dataclass(kind) and dataclasses.is_dataclass(value):
        return None  # a part of another kind: whoever builds it knows whether it fits
    try:
        return None if not isinstance(kind, type) or isinstance(value, kind) else _called(kind)
    except TypeError:  # a protocol that cannot be asked
        return None


def _problem_of_number(value: Any, kind: type, allowed: Range | None) -> str | None:
    what = "a whole number" if kind is int else "a number" if allowed else "a finite number"
    fits = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if fits and value in (allowed or (WHOLE if kind is int else REAL)):  # neither NaN nor infinity is
        return None
    return what if allowed is None else f"{what} {allowed}"


def _problem_of_tuple(value: Any, parts: Sequence[Any]) -> str | None:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or len(value) > LONGEST:
        return "a list"
    if parts[-1:] != (Ellipsis,):
        if len(value) != len(parts):
            return f"a list of {len(parts)}"
        kinds: Iterator[Any] = iter(parts)
    else:
        kinds = iter(parts[:1] * len(value))
    problem = next((p for p in map(_problem, value, kinds) if p is not None), None)
    return None if problem is None else f"a list whose every value is {problem}"


def _called(kind: type) -> str:
    return {bool: "true or false", NoneType: "None"}.get(kind, f"a {kind.__name__}")
