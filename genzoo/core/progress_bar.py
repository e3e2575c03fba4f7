"""A progress bar for what takes a while. Free of torch, as is what the commands import before they know what to do."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; yields the function that advances it."""
    if not sys.stdout.isatty():
        yield lambda images: None
        return
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda images: bar.advance(task, images)
