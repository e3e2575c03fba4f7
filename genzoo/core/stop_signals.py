"""The signals by which people and systems stop a program, as exceptions."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from genzoo.core.errors import Interrupted

STOPPING = tuple(getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n))
"""Ctrl-C, what `kill` sends, and a terminal that hangs up; Windows has no SIGHUP."""


def not_ignored() -> tuple[signal.Signals, ...]:
    """Those that a program may take: what was ignored from the start, as SIGHUP is under nohup, stays ignored."""
    return tuple(n for n in STOPPING if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN)


@contextmanager
def raising_interrupted() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise `Interrupted` in the main thread, as SIGINT raises `KeyboardInterrupt`.

    Files half-written are then removed, and children ended. In other threads it does nothing.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    former = {}
    if threading.current_thread() is threading.main_thread():
        former = {n: signal.signal(n, handle) for n in not_ignored() if n != signal.SIGINT}
    try:
        yield
    finally:
        for number, handler in former.items():
            # None stands for a handler that Python did not install and cannot give back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
