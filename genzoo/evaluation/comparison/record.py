"""A comparison as JSON: everything that its page shows, for programs."""

import dataclasses
import math
from enum import Enum
from pathlib import Path
from typing import Any

from genzoo.evaluation.comparison.entries import Entry
from genzoo.evaluation.comparison.overview import remarks
from genzoo.evaluation.comparison.page import Comparison


def record(comparison: Comparison) -> dict[str, Any]:
    """JSON-able; figures that are not finite are null."""
    return plain(
        {
            "data": comparison.data,
            "versions": comparison.versions(),
            "notes": comparison.notes,
            "remarks": remarks(comparison.entries),
            "runs": [_run(comparison, entry) for entry in comparison.entries],
            "failures": comparison.failures,
        }
    )


def _run(comparison: Comparison, entry: Entry) -> dict[str, Any]:
    fields = {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry) if f.name != "config"}
    more = {"missing": entry.missing, "weights_sha256": entry.weights_id()}
    return {**fields, **more, "commands": comparison.commands_of(entry)}


def plain(value: Any) -> Any:
    """Dataclasses, paths, enums and tuples as what JSON has.

    >>> plain({"run": Path("a"), "value": float("nan"), "interval": (1.0, 2.0)})
    {'run': 'a', 'value': None, 'interval': [1.0, 2.0]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
