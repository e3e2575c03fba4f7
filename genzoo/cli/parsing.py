"""Command lines into dataclasses by tyro, with mistakes told in one line. Free of torch, so `--help` is quick."""

import contextlib
import dataclasses
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import tyro

from genzoo.core.bounds import problems_of, shown
from genzoo.core.path_arguments import is_too_long
from genzoo.core.showable import showable
from genzoo.core.suggestions import nearest

T = TypeVar("T")

_FRAME = "│╭╮╰╯| "


LONGEST_ERROR = 2000
"""Characters of a line about an error."""


def fail(message: str) -> NoReturn:
    """Ends the program with "genzoo: error: ..." on stderr and exit code 2."""
    print(f"genzoo: error: {showable(message, LONGEST_ERROR)}", file=sys.stderr)
    sys.exit(2)


def parse(kind: type[T], argv: Sequence[str], prog: str, *, default: T | None = None) -> T:
    """`argv` as a `kind`; ends the program with one line on any mistake, unknown flags included."""
    value, rest = parse_known(kind, argv, prog, default=default)
    if rest:
        refuse(rest, prog, flags_of(kind))
    return value


def parse_known(
    kind: type[T], argv: Sequence[str], prog: str, *, default: T | None = None
) -> tuple[T, list[str]]:
    """`argv` as a `kind`, and the arguments that `kind` does not know, in their order."""
    start: dict[str, Any] = {} if default is None else {"default": default}
    check_words(argv)
    with _one_line_errors():
        value, rest = tyro.cli(kind, args=list(argv), prog=prog, return_unknown_args=True, **start)
    check_flags(value)
    return value, rest


def check_words(argv: Sequence[str]) -> None:
    """Ends the program over an argument that says nothing, or holds what no argument can hold."""
    for word in argv:
        flag, equals, value = word.partition("=")
        if not word.strip() or (flag.startswith("-") and equals and not value.strip()):
            fail(f"{flag.strip() or 'an argument'} is empty: give it a value, or leave it out")
        if "\0" in word:
            fail(f"{shown(word)} holds a NUL character, which no argument can")


def check_flags(flags: Any) -> None:
    """Ends the program over the first flag whose value its type does not have, or that is no path where it is one."""
    for name, problem, value in problems_of(flags):
        wanted = problem.removesuffix(" or None")
        fail(f"--{name.rstrip('_').replace('_', '-')} must be {wanted}, got {shown(value)}")
    for field in dataclasses.fields(flags):
        for path in _paths(getattr(flags, field.name), field.name):
            if is_too_long(path):
                fail(
                    f"--{field.name.replace('_', '-')} holds a name that is too long for a file: {shown(path)}"
                )


NAME_PATHS = ("out", "data", "data_root", "cond", "features", "ood")
"""Flags of the type `str` that may hold paths."""


def _paths(value: Any, name: str) -> list[str]:
    if isinstance(value, tuple):
        return [path for part in value for path in _paths(part, name)]
    is_path = isinstance(value, Path) or (isinstance(value, str) and name in (*NAME_PATHS, "names"))
    return [str(value)] if is_path else []


def refuse(unknown: Sequence[str], prog: str, flags: Sequence[str]) -> NoReturn:
    """Ends the program over the first of the `unknown` arguments, naming the nearest of `flags`."""
    flag = next((argument for argument in unknown if argument.startswith("-")), None)
    if flag is None:
        fail(f"unexpected argument {shown(unknown[0])}; see {prog} --help")
    flag = flag.split("=")[0]
    near = nearest(flag, flags)
    fail(
        f"unknown flag {shown(flag)[1:-1]}{'' if near is None else f': did you mean {near}?'}; see {prog} --help"
    )


def flags_of(kind: type, prefix: str = "--") -> list[str]:
    """The flags of a dataclass, nested ones by their dotted names.

    >>> Inner = dataclasses.make_dataclass("Inner", [("learning_rate", float)])
    >>> flags_of(dataclasses.make_dataclass("Outer", [("width", int), ("training", Inner)]))
    ['--width', '--training.learning-rate']
    """
    flags = []
    for field in dataclasses.fields(kind):
        name = prefix + field.name.rstrip("_").replace("_", "-")
        kinds = (field.type, type(field.default), _made_by(field.default_factory))
        nested = next((k for k in kinds if isinstance(k, type) and dataclasses.is_dataclass(k)), None)
        flags += [name] if nested is None else flags_of(nested, name + ".")
    return flags


def _made_by(factory: Any) -> type | None:
    """The type of what a field's factory makes; None where it has no factory."""
    return None if factory is dataclasses.MISSING else type(factory())


def print_help(parts: dict[str, Any], prog: str, description: str) -> None:
    """Prints the help on the fields of all `parts` (instances of dataclasses, by the name of their section)."""
    fields = [
        (name, Annotated[type(part), tyro.conf.arg(name="")], dataclasses.field(default=part))
        for name, part in parts.items()
    ]
    together = dataclasses.make_dataclass("Arguments", fields, frozen=True)
    with contextlib.suppress(SystemExit):
        tyro.cli(together, args=["--help"], prog=prog, description=description)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turns tyro's framed error message into our line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            yield
    except SystemExit as stop:
        if stop.code != 2:
            raise
        fail(unframed(errors.getvalue()))


def unframed(box: str) -> str:
    """The text of a framed message between its title and the first rule behind it, as one line.

    >>> unframed("╭─ Parsing error ─╮\\n│ Error parsing   │\\n│ --n: no number  │\\n│ ────── │\\n│ help │\\n╰───╯")
    'Error parsing --n: no number'
    >>> unframed(" Parsing error \\n ------------- \\n  Error parsing \\n  --n: no number \\n -----\\n  help \\n")
    'Error parsing --n: no number'
    """
    words: list[str] = []
    in_title = True
    for line in box.splitlines():
        text = line.strip(_FRAME)
        if text.startswith("─") or (len(text) > 3 and not text.strip("-")):  # the latter in plain terminals
            if not in_title and words:
                break
            in_title, words = False, []
            continue
        words += text.split()
    text = " ".join(words).partition(" Got errors:")[0]  # one per member of a union: more than a person needs
    return text or "the arguments cannot be understood"
