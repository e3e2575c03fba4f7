"""Networks that a stranger's configuration describes, built within limits: on the meta device first, and not for ever.

A field that says how often something is repeated is worth gigabytes. Modules and parameters are counted as they are
registered, whatever the family, and building ends where a limit is passed.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from genzoo.core.errors import GenzooError

MOST_MODULES = 2**15
"""Ten times what the largest preset has."""
MOST_VALUES = 2**36
"""Parameters: 69 thousand million."""

BUILD_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, NotImplementedError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip
"""What building raises over values that do not go together."""


class TooLarge(GenzooError):
    """A network of more parts or parameters than any that could be meant."""


@contextmanager
def bounded(most_modules: int = MOST_MODULES, most_values: int = MOST_VALUES) -> Iterator[None]:
    """Within it this thread registers no more modules and parameters than that. Raises `TooLarge`."""
    thread, modules, values = threading.get_ident(), 0, 0

    def on_module(owner: nn.Module, name: str, module: nn.Module | None) -> None:
        nonlocal modules
        if threading.get_ident() == thread:
            modules += 1
            if modules > most_modules:
                raise TooLarge(f"its network has more than {most_modules} parts; lower its depth")

    def on_parameter(owner: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal values
        if threading.get_ident() == thread and parameter is not None:
            values += 1 if nn.parameter.is_lazy(parameter) else parameter.numel()
            if values > most_values:
                raise TooLarge(f"its network has more than {most_values:.2g} parameters; lower its widths")

    handles = [
        register_module_module_registration_hook(on_module),
        register_module_parameter_registration_hook(on_parameter),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def on_meta(build: Callable[[], nn.Module]) -> nn.Module | None:
    """What `build` makes, on the meta device, where tensors have shapes only; None where it cannot be made there.

    Errors other than `GenzooError` are left for building in earnest to tell. Random states stay as they are. Raises
    `TooLarge`.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), bounded():
            return build()
    except GenzooError:
        raise
    except BUILD_ERRORS:
        return None
