"""`--import MODULE`: modules of the user's own, which register presets, data sources and metrics.

What they register is then as good as genzoo's own in this command, and in those that it starts.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Annotated

import tyro

from genzoo.cli.parsing import fail
from genzoo.core.attempts import show_traceback
from genzoo.core.bounds import shown
from genzoo.core.config import allow_types_of
from genzoo.core.errors import GenzooError
from genzoo.core.path_arguments import real_path

FLAG = "--import"
VARIABLE = "GENZOO_IMPORT"
"""Holds the modules, one after the other by `os.pathsep`, for commands that a command starts."""

Imports = Annotated[tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE")]
"""The type of the flag's field, which is there for `--help`: `imported` has taken the flag away before parsing."""


def imported(argv: Sequence[str]) -> list[str]:
    """`argv` without `--import MODULE`, once these modules are imported; may be given several times.

    MODULE is a module's name, looked for in the working directory too, or the path of a Python file. Ends the program
    with one line where there is none, or where it cannot be imported.
    """
    names, rest = _taken(argv)
    named = [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    for name in dict.fromkeys([*named, *names]):
        _import(name)
    if names:
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys([*named, *map(_absolute, names)]))
    return rest


def _taken(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    names, rest, words = [], [], iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag != FLAG:
            rest.append(word)
            continue
        name = value if equals else next(words, "")
        if not name or name.startswith("-"):
            fail(f"{FLAG} needs a module, such as {FLAG} my_models or {FLAG} path/to/my_models.py")
        names.append(name)
    return names, rest


def _is_file(name: str) -> bool:
    return name.endswith(".py")


def _absolute(name: str) -> str:
    """Of a file the whole path: another command may be started elsewhere."""
    return str(real_path(Path(name))) if _is_file(name) else name


def _import(name: str) -> None:
    try:
        module = _from_file(Path(name)) if _is_file(name) else _from_path(name)
        allow_types_of(module.__name__)
    except GenzooError as error:
        fail(f"{FLAG} {name}: {error}")
    except SystemExit:
        fail(f"{FLAG} {name}: it ended the program instead of registering anything")
    except Exception as error:  # whatever the user's module raises
        show_traceback(error)
        fail(f"{FLAG} {shown(name)[1:-1]}: {type(error).__name__}: {' '.join(str(error).split())}")


def _from_path(name: str) -> ModuleType:
    """A module by its name; the console script, other than `python -m`, does not look into the working directory."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    return import_module(name)


def _from_file(path: Path) -> ModuleType:
    """A file as the module of its stem, once."""
    path = real_path(path.expanduser())
    known = sys.modules.get(path.stem)
    if known is not None and real_path(Path(getattr(known, "__file__", None) or "")) == path:
        return known
    if known is not None:
        raise GenzooError(f"there is a module called {path.stem} already: give the file another name")
    if not path.is_file():
        raise GenzooError("there is no such file")
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # before it runs: dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module
