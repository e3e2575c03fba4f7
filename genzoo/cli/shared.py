"""What the commands share around a run folder: names, data, pictures, figures and how mistakes are told.

Free of torch until something is computed, so that `--help` is quick.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genzoo.cli.parsing import fail

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.attempts import Attempts
    from genzoo.core.spec import DataSpec


def guarded(work: Callable[[], None]) -> int:
    """Runs `work` and returns the exit code: a `GenzooError` becomes one line on stderr and 2.

    One that was interrupted ends with 128 and the signal's number.
    """
    from genzoo.core.errors import GenzooError, Interrupted
    from genzoo.core.stop_signals import raising_interrupted

    try:
        with raising_interrupted():
            work()
    except GenzooError as error:
        fail(" ".join(str(error).split()))
    except Interrupted as stop:
        print(f"genzoo: {stop}", file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print("genzoo: interrupted", file=sys.stderr)
        return 130
    return 0


def fresh_folder(preset: str, data: str, root: Path = Path("runs")) -> Path:
    """`runs/PRESET-DATA`, or the first of `-2`, `-3` ... that is not there yet.

    Raises `GenzooError` where several processes would each choose their own.
    """
    from genzoo.core.errors import GenzooError

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise GenzooError("several processes cannot agree on a new run folder; name one with --out")
    words = "".join(c if c.isalnum() else " " for c in data.rstrip("/").rpartition("/")[2].lower()).split()
    name = "-".join([preset, *words])
    candidates = (root / (name if n == 1 else f"{name}-{n}") for n in range(1, 1_000_000))
    return next(path for path in candidates if not os.path.lexists(path))


def is_main_process() -> bool:
    """False in all but the first of several processes started by `accelerate launch`."""
    return os.environ.get("RANK", "0") == "0"


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
    return evenly(torch.tensor(chosen.numbers), n)


def tell(remarks: Sequence[str]) -> None:
    """Remarks, a line each, on stderr, by the first of several processes."""
    from genzoo.core.showable import showable

    if is_main_process():
        for remark in remarks:
            print(f"note: {showable(remark, 1000)}", file=sys.stderr, flush=True)


def none_rows(attempts: "Attempts") -> dict[str, str]:
    """The rows of what failed, each with the reason."""
    return {name: f"none: {reason}" for name, reason in attempts.missing.items()}


def print_table(title: str, rows: Mapping[str, str]) -> None:
    """A table of names and values."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)
