"""`genzoo train PRESET --help`: the twenty flags that a person may want first, then all others under a heading."""

import ast
import contextlib
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from itertools import pairwise
from types import UnionType
from typing import Annotated, Any, get_type_hints

import tyro

FIRST = (
    "data", "cond", "size", "image-size", "minutes", "steps", "epochs", "seed", "out", "resume", "device",
    "training.batch-size", "training.learning-rate",
)  # fmt: skip
"""Flags that come first, whatever the preset; the first of its own fields fill up to `MOST_FIRST`."""
MOST_FIRST = 20


@dataclass(frozen=True)
class Flag:
    """A leaf of a dataclass: its dotted name, what it takes, its default and what it is for."""

    name: str
    type: Any
    default: Any
    text: str


def print_preset_help(run: Any, config: Any, prog: str, description: str) -> None:
    """Prints the help on the fields of `run` (flags of the command) and `config` (the preset's)."""
    of_run, of_config = list(flags(run)), list(flags(config))
    by_name = {flag.name: flag for flag in [*of_run, *of_config]}
    first = [by_name[name] for name in FIRST if name in by_name]
    own = [flag for flag in of_config if "." not in flag.name and flag not in first]
    first += own[: MOST_FIRST - len(first)]
    rest = [flag for flag in by_name.values() if flag not in first]
    top = Annotated[_group("First", first), tyro.conf.arg(name="")]
    more = Annotated[_group("More", rest), tyro.conf.OmitArgPrefixes]
    both = make_dataclass("Flags", [_with_default("first", top), _with_default("more", more)], frozen=True)
    with contextlib.suppress(SystemExit):
        tyro.cli(both, args=["--help"], prog=prog, description=description)


def _with_default(name: str, kind: Any) -> tuple[str, Any, Any]:
    return name, kind, field(default_factory=kind.__origin__)


def _group(name: str, chosen: Sequence[Flag]) -> type:
    parts = [
        (
            f"f{i}",
            Annotated[flag.type, tyro.conf.arg(name=flag.name, help=flag.text)],
            field(default_factory=_Constant(flag.default)),
        )
        for i, flag in enumerate(chosen)
    ]
    return make_dataclass(name, parts, frozen=True)


@dataclass(frozen=True)
class _Constant:
    value: Any

    def __call__(self) -> Any:
        return self.value


def flags(part: Any, prefix: str = "") -> Iterator[Flag]:
    """The flags of a dataclass instance; those of nested ones, and of tuples of some, by their dotted names.

    The fields of an object that may be of several kinds cannot be told by flags.
    """
    kinds, texts = get_type_hints(type(part), include_extras=True), attribute_texts(type(part))
    for f in fields(part):
        name, value = prefix + f.name.rstrip("_").replace("_", "-"), getattr(part, f.name)
        if is_dataclass(value) and isinstance(kinds[f.name], UnionType):
            continue
        if is_dataclass(value) and not isinstance(value, type):
            yield from flags(value, f"{name}.")
        elif isinstance(value, tuple) and any(map(is_dataclass, value)):
            for i, item in enumerate(value):
                yield from flags(item, f"{name}.{i}.")
        else:
            yield Flag(name, kinds[f.name], value, texts.get(f.name, ""))


def attribute_texts(cls: type) -> dict[str, str]:
    """The strings below the fields of a class, those of its bases included; empty where there is no source."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except (OSError, TypeError, IndentationError):
            continue
        lines = getattr(body, "body", [])
        for line, after in pairwise(lines):
            text = after.value if isinstance(after, ast.Expr) else None
            if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
                continue
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found[line.target.id] = " ".join(text.value.split())
    return found
