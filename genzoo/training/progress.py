"""What a run tells while it goes: a bar on a terminal, plain lines elsewhere, and `metrics.jsonl`."""

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.checked_json import parsed_json
from genzoo.core.files import append_text, write_atomically
from genzoo.core.regular_files import read_regular
from genzoo.training.processes import Processes
from genzoo.training.step import StepResult

FIGURES = frozenset({
    "step", "images", "seconds", "loss", "val_loss", "val_bits_per_dim", "cpu_seconds", "peak_memory_mib", "processes",
    "images_per_second", "skipped", "lr", "grad_norm",
})  # fmt: skip
"""Of a row of `metrics.jsonl`: numbers, or null."""
PARTS = ("parts", "val_parts", "machine")
"""Of a row: objects."""

LINE_SECONDS, LINE_SHARE, LINE_PATIENCE = 10.0, 0.1, 60.0


class Reporter:
    """Shows progress if `show`: a rich bar on a terminal, now and then a line elsewhere.

    Where nobody can be shown anything any more, since a terminal hung up or a reader has gone, it falls silent: a
    training does not end by that.
    """

    def __init__(self, *, show: bool) -> None:
        self.show = show
        self.terminal = show and sys.stdout.isatty()
        self.note = ""
        """A few words that stay on the bar until others take their place."""
        self._bar: Any = None
        self._task: Any = None
        self._line_at, self._line_share = time.monotonic(), 0.0

    def start(self) -> None:
        """Opens the bar."""
        if self.terminal:
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, refresh_per_second=4)
            self._task = self._bar.add_task("starting", total=1.0)
            self._bar.start()

    def update(self, step: int, fraction: float, meter: "Meter", speed: float, seconds_left: float) -> None:
        """Tells the state after `step`: share of the budget used, losses, images/s, seconds left."""
        if not self.show:
            return
        figures = [
            f"loss {meter.loss:.4g}",
            *(f"{name} {value:.2f}" for name, value in meter.watched.items()),
        ]
        figures += [self.note] if self.note else []
        text = f"step {step}  {'  '.join(figures)}  {speed:,.0f} images/s  {clock_text(seconds_left)} left"
        with self._silent_when_alone():
            if self._bar is not None:
                self._bar.update(self._task, completed=min(fraction, 1.0), description=text)
            elif self._line_due(fraction):
                print(f"{min(fraction, 1.0):4.0%}  {text}", flush=True)

    def say(self, text: str) -> None:
        """A message of one line."""
        with self._silent_when_alone():
            if self._bar is not None:
                self._bar.console.print(text, highlight=False, markup=False)
            elif self.show:
                print(text, flush=True)

    def stop(self) -> None:
        """Closes the bar."""
        with self._silent_when_alone():
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    @contextmanager
    def _silent_when_alone(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.show, self._bar = False, None

    def _line_due(self, fraction: float) -> bool:
        """At most a line in ten seconds; each tenth of the run, and each minute of a long one."""
        waited = time.monotonic() - self._line_at
        if waited < LINE_SECONDS or (fraction - self._line_share < LINE_SHARE and waited < LINE_PATIENCE):
            return False
        self._line_at, self._line_share = time.monotonic(), fraction
        return True


def clock_text(seconds: float) -> str:
    """A duration for people.

    >>> clock_text(3725.4), clock_text(65)
    ('1:02:05', '1:05')
    """
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class MetricsLog:
    """Appends rows to a file of JSON lines; with `path` None it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.count = path, 0

    def start(self, step: int = 0, rows: int | None = None) -> None:
        """Forgets whatever an earlier run wrote after its checkpoint at `step`, broken last lines included.

        The checkpoint counted `rows`; only the bill of an earlier end may follow them. Without such a count (None)
        the steps of rows decide.
        """
        if self.path is None:
            return
        found = self.rows() if step else []
        kept = [row for row in found if row.get("step", math.inf) <= step]
        if rows is not None:
            kept = [*kept[:rows], *(row for row in kept[rows:] if is_bill(row))]
        self.count = len(kept)
        content = "".join(json.dumps(row) + "\n" for row in kept).encode()
        write_atomically(self.path, content, inside=self.path.parent)

    def write(self, row: dict[str, Any]) -> None:
        """Appends one row; numbers that JSON cannot hold become null."""
        if self.path is None:
            return
        self.count += 1
        append_text(self.path, json.dumps(_finite(row)) + "\n", inside=self.path.parent)

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows; what a kill cut short, or nobody could have written, is left out.

        Raises `GenzooError` where the file is none that could be read.
        """
        if self.path is None or not os.path.lexists(self.path):
            return []
        lines = read_regular(self.path).splitlines()
        return [row for row in map(_row, lines) if row is not None]


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of the file, where it is an object whose figures are numbers."""
    try:
        row = parsed_json(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step", 0), int):
        return None
    figures = [row[name] for name in FIGURES & row.keys() if row[name] is not None]
    numbers = all(isinstance(figure, (int, float)) and not isinstance(figure, bool) for figure in figures)
    return row if numbers and all(isinstance(row.get(part, {}), dict) for part in PARTS) else None


def is_bill(row: Mapping[str, Any]) -> bool:
    """Whether a row of metrics is the last one of a run or a part of it: what it cost, and on what machine."""
    return "machine" in row


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Meter:
    """Sums of what happened since the last row of metrics, and figures that move slowly, to be shown.

    `watched` are names of parts; by the last word of its name each of them has a slow figure in `watched`.
    """

    def __init__(self, watched: Sequence[str] = ()) -> None:
        self.loss, self.last_speed = math.nan, 0.0
        self.names, self.watched = tuple(watched), dict[str, float]()
        self.clear()

    def clear(self, last_speed: float = 0.0) -> None:
        """Begins new sums; what is shown goes on."""
        self.last_speed = last_speed
        self.steps, self.timed, self.seconds, self.norm, self.loss_sum = 0, 0, 0.0, 0.0, 0.0
        self.parts: dict[str, Tensor] = {}

    def add(self, result: StepResult, seconds: float) -> None:
        """One good step that took `seconds`."""
        self.steps, self.timed, self.seconds = self.steps + 1, self.timed + 1, self.seconds + seconds
        self.loss_sum, self.norm = self.loss_sum + result.loss, self.norm + result.norm
        # what is shown moves slowly, because the losses of single batches jump about
        self.loss = _slowly(self.loss, result.loss)
        for name in (n for n in self.names if n in result.parts):
            shown = name.rpartition("/")[2]
            self.watched[shown] = _slowly(self.watched.get(shown, math.nan), float(result.parts[name]))
        for name, value in result.parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + value

    def dump(self, processes: Processes) -> dict[str, Any]:
        """The sums so far, for a checkpoint, as each of the processes may take them up; every process must call it.

        Clocks are left out: a speed is that of the steps since.
        """
        parts = self.parts
        if processes.count > 1:
            names = list(parts)
            sums = processes.sum([self.loss_sum, *(float(parts[k]) for k in names)])
            loss_sum, *means = (value / processes.count for value in sums)
            parts = {k: torch.tensor(v) for k, v in zip(names, means, strict=True)}
        else:
            loss_sum = self.loss_sum
        return {"steps": self.steps, "norm": self.norm, "loss_sum": loss_sum, "parts": dict(parts)}

    def restore(self, sums: Mapping[str, Any], device: torch.device) -> None:
        """The inverse of `dump`."""
        self.steps, self.norm, self.loss_sum = sums["steps"], sums["norm"], sums["loss_sum"]
        self.parts = {k: v.to(device) for k, v in sums["parts"].items()}

    def speed(self, batch_size: int) -> float:
        """Images per second in training steps."""
        return self.timed * batch_size / self.seconds if self.seconds > 0 else self.last_speed

    def means(self, processes: Processes) -> dict[str, float]:
        """Means per step and over the processes: "loss" and every part."""
        names, scale = list(self.parts), self.steps * processes.count
        sums = processes.sum([self.loss_sum, *(float(self.parts[k]) for k in names)])
        return {k: v / scale for k, v in zip(["loss", *names], sums, strict=True)}


def _slowly(old: float, new: float) -> float:
    return new if math.isnan(old) else 0.95 * old + 0.05 * new
