"""The loss curve of a run, as a picture."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genzoo.core.files import write_atomically


def save_curve(rows: Sequence[Mapping[str, Any]], path: str | Path, unit: str = "") -> None:
    """Writes training and validation loss over steps as PNG, from the rows of `metrics.jsonl`.

    `unit` is that of the losses, where they have one.
    """
    from matplotlib.figure import Figure  # without pyplot, which keeps global state

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for key, label, style in (("loss", "training", "-"), ("val_loss", "validation", "o-")):
        points = [(r["step"], r[key]) for r in rows if None not in (r.get(key), r.get("step"))]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
    axes.set(xlabel="step", ylabel=loss_label(unit))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
        axes.set_ylim(*_limits([y for line in axes.lines for y in line.get_ydata()]))  # pyright: ignore
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue(), inside=Path(path).parent)


def loss_label(unit: str) -> str:
    """What the axis of losses is called.

    >>> loss_label("nats"), loss_label("")
    ('loss (nats)', 'loss')
    """
    return f"loss ({unit})" if unit else "loss"


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Axis limits that leave out the highest twentieth, the steep start of a run."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[math.ceil(0.95 * (len(ordered) - 1))]
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin
