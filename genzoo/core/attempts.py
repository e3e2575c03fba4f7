"""What is measured or drawn beside the work itself: each gives its answer or the reason why there is none.

A failure costs its own place and nothing else. Who stops the program (Ctrl-C, a signal) is no failure and passes.
"""

import os
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

from genzoo.core.errors import reason_of

T = TypeVar("T")

TRACEBACK = "GENZOO_TRACEBACK"
"""The environment variable that asks for the tracebacks of errors that are told in one line."""


class Attempts:
    """Tries one thing after another; `missing` tells by its name why something failed, `None` stands in its place."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self._errors: list[Exception] = []

    def __call__(self, name: str, work: Callable[[], T]) -> T | None:
        """What `work` returns, or None."""
        try:
            return work()
        except Exception as error:  # whatever a library raises, too: the rest goes on
            show_traceback(error)
            if not any(error is former for former in self._errors):  # of what several need one tells it
                self._errors.append(error)
                self.missing[name] = reason_of(error)
            return None


def show_traceback(error: BaseException) -> None:
    """Prints the traceback to stderr where `GENZOO_TRACEBACK` is set."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error, file=sys.stderr)
