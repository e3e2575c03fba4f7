"""What `genzoo compare` does, in Python: run folders, reports and models in memory beside each other.

comparison = compare(["runs/vae-digits", report, ("mine", model, data)], html="comparison.html")
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genzoo.core.errors import GenzooError
from genzoo.core.path_arguments import path_of
from genzoo.data.image_data import ImageData
from genzoo.evaluation.comparison.entries import Entry, check_same_data, distinct, entry_of, read_entries
from genzoo.evaluation.comparison.page import Comparison, write_page
from genzoo.evaluation.evaluator import Features, evaluate
from genzoo.evaluation.report.schema import Report
from genzoo.models.base import Encoder, GenerativeModel

Compared = str | Path | Report | tuple[str, GenerativeModel, ImageData]
"""A run folder, a report, or a name with a model and the data to evaluate it on."""


def compare(
    items: Sequence[Compared],
    *,
    html: str | Path | None = None,
    samples: int | None = None,
    features: Features = None,
    max_images: int | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
) -> Comparison:
    """The models beside each other; those that come with data are evaluated first, as the other arguments say.

    With `html` the page is written there. Raises `GenzooError` for nothing to compare, for encoders, for a run folder
    that is named twice, and where two are about different data.
    """
    page = None if html is None else path_of(html, "html")
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        raise GenzooError("compare takes a list of run folders, reports or (name, model, data)")
    options = {"samples": samples, "features": features, "max_images": max_images, "max_seconds": max_seconds}
    folders = [Path(item) for item in items if isinstance(item, (str, Path))]
    runs = read_entries(folders)
    entries = distinct([
        entry
        for item in items
        for entry in (
            [run for run in runs if run.run == Path(item)]
            if isinstance(item, (str, Path))
            else [_in_memory(item, {**options, "seed": seed})]
        )
    ])  # fmt: skip
    check_same_data(entries)
    comparison = Comparison(entries)
    if page is not None:
        write_page(comparison, page)
    return comparison


def _in_memory(item: Any, options: dict[str, Any]) -> Entry:
    if isinstance(item, Report):
        return entry_of(item)
    if not isinstance(item, tuple) or len(item) != 3 or not isinstance(item[0], str):
        raise GenzooError(
            f"compare takes run folders, reports or (name, model, data), got {type(item).__name__}"
        )
    name, model, data = item
    if isinstance(model, Encoder):
        raise GenzooError(f"{name} is an encoder, which draws nothing: compare generative models")
    return entry_of(evaluate(model, data, **options), name)
