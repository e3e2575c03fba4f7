"""Packages whose names are imported when they are first used (PEP 562), so that nobody waits for what is not needed."""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of `package`: public name to the module that defines it.

    Modules and folders of the package are reached as attributes, too. A home "module:name" gives a name another one.
    """

    def get(name: str) -> Any:
        if name in homes:
            module, _, inside = homes[name].partition(":")
            return getattr(import_module(module), inside or name)
        if not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted(homes)
