"""What the commands share around a run folder: names, data, pictures, figures and how mistakes are told.

Free of torch until something is computed, so that `--help` is quick.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genzoo.cli.parsing import fail
from genzoo.cli.terminal import forget_output, plain, tolerant_streams
from genzoo.core.attempts import TRACEBACK, show_traceback
from genzoo.core.bounds import shown
from genzoo.core.errors import reason_of
from genzoo.core.launch import world_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from genzoo.core.attempts import Attempts
    from genzoo.core.spec import DataSpec


FAULT = 70
"""The exit code of a fault of genzoo (EX_SOFTWARE of sysexits.h)."""
PIPE = 141
"""That of a program whose reader has gone: 128 + SIGPIPE."""


def guarded(work: Callable[[], int | None]) -> int:
    """Runs `work` and returns the exit code; whatever goes wrong becomes one line on stderr and never a traceback.

    A `GenzooError`, what the system refuses and a lack of memory end with 2, an interrupted one with 128 and the
    signal's number, a reader of the output that has gone with 141. All else is a fault of genzoo, which says so: 70.
    """
    from genzoo.core.errors import GenzooError, Interrupted
    from genzoo.core.stop_signals import raising_interrupted

    with tolerant_streams():
        try:
            with raising_interrupted():
                code = work() or 0
            sys.stdout.flush()
            return code
        except GenzooError as error:
            show_traceback(error)
            fail(reason_of(error))
        except Interrupted as stop:
            try:
                print(f"genzoo: {stop}", file=sys.stderr, flush=True)
                sys.stdout.flush()
            except OSError:  # a terminal that has hung up
                forget_output()
            return stop.exit_code
        except KeyboardInterrupt:
            print("genzoo: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            forget_output()
            return PIPE
        except Exception as error:
            show_traceback(error)
            return _told(error)


def _told(error: Exception) -> int:
    """One line on an error that nobody foresaw; returns the exit code."""
    if _is_want_of_memory(error):
        fail("there is not enough memory: take a smaller --size, --image-size, --n or --training.batch-size")
    if isinstance(error, OSError) and error.errno is not None:
        place = "" if error.filename is None else f"{shown(os.fsdecode(error.filename))[1:-1]}: "
        fail(f"{place}{error.strerror or error}")
    whose = "genzoo, or of a module named with --import" if os.environ.get("GENZOO_IMPORT") else "genzoo"
    print(
        f"genzoo: a fault of {whose}, not of yours: {reason_of(error)}; set {TRACEBACK}=1 to see where it happened",
        file=sys.stderr,
    )
    return FAULT


def _is_want_of_memory(error: Exception) -> bool:
    """Torch raises `RuntimeError` where the processor's memory is used up."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
    )


def fresh_folder(preset: str, data: str, root: Path = Path("runs")) -> Path:
    """`runs/PRESET-DATA`, or the first of `-2`, `-3` ... that is not there yet.

    Raises `GenzooError` where several processes would each choose their own.
    """
    from genzoo.core.errors import GenzooError

    if world_size() > 1:
        raise GenzooError("several processes cannot agree on a new run folder; name one with --out")
    words = "".join(c if c.isalnum() else " " for c in data.rstrip("/").rpartition("/")[2].lower()).split()
    name = "-".join([preset, *words])
    candidates = (root / (name if n == 1 else f"{name}-{n}") for n in range(1, 1_000_000))
    return next(path for path in candidates if not os.path.lexists(path))


def is_main_process() -> bool:
    """False in all but the first of several processes started by `accelerate launch` or `torchrun`."""
    torch = sys.modules.get("torch")  # who joins others has loaded it
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return world_size() == 1 or os.environ.get("RANK", "0") == "0"


def class_condition(text: str, n: int, spec: "DataSpec", names: Sequence[str] = ()) -> "Tensor":
    """Classes such as "3", "cats" or "0,1,2" as long `[n]`, in blocks of equal size; remarks go to stderr.

    Raises `GenzooError` where the model has no classes, or not these.
    """
    import torch

    from genzoo.core.errors import GenzooError
    from genzoo.data.class_choice import choose_classes
    from genzoo.evaluation.sample_grids import evenly

    if spec.cond != "class":
        what = "no classes" if spec.cond is None else "vectors instead of classes"
        raise GenzooError(f"this model was trained with {what}; leave --cond out, or train with --cond class")
    chosen = choose_classes(text, names, spec.cond_size)
    tell(chosen.remarks)
    if n < len(chosen.numbers):
        raise GenzooError(
            f"--n {n} is fewer than the {len(chosen.numbers)} classes of --cond: give --n {len(chosen.numbers)} or more"
        )
    return evenly(torch.tensor(chosen.numbers), n)


def tell(remarks: Sequence[str]) -> None:
    """Remarks, a line each, on stderr, by the first of several processes."""
    from genzoo.core.showable import showable

    if is_main_process():
        for remark in remarks:
            print(f"note: {showable(remark, 1000)}", file=sys.stderr, flush=True)


def device_of(name: str | None) -> "torch.device | None":
    """The device of a flag; raises `GenzooError` where there is no such one here."""
    from genzoo.core import devices

    return devices.device_of(name)


def none_rows(attempts: "Attempts") -> dict[str, str]:
    """The rows of what failed, each with the reason."""
    return {name: f"none: {reason}" for name, reason in attempts.missing.items()}


def print_table(title: str, rows: Mapping[str, str]) -> None:
    """A table of names and values."""
    from rich.console import Console
    from rich.table import Table

    from genzoo.core.showable import page_text

    console = Console(highlight=False, markup=False)
    table = Table(title=plain(page_text(title), console.encoding), show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(*(plain(page_text(text), console.encoding) for text in (name, value)))
    console.print(table)
