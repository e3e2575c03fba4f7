"""The page of a comparison: one HTML file with all pictures, styles and scripts in it, which asks no network."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch

from genzoo.core.errors import GenzooError
from genzoo.core.files import MADE_BY, write_product
from genzoo.core.showable import page_text
from genzoo.core.spec import DataSpec
from genzoo.core.version import __version__
from genzoo.evaluation.comparison import overview
from genzoo.evaluation.comparison.charts import COLOURS, charts
from genzoo.evaluation.comparison.entries import Entry
from genzoo.evaluation.comparison.page_pictures import (
    Picture,
    class_names,
    class_pictures,
    neighbour_pictures,
    picture,
    sample_pictures,
    tiles_of,
    typical_pictures,
    work_pictures,
)
from genzoo.evaluation.comparison.tables import QualityOf, compact, figure_names, table_rows
from genzoo.evaluation.comparison.text_table import overview_text
from genzoo.evaluation.cost import machine_text, versions_text
from genzoo.evaluation.report.plain_json import finite
from genzoo.evaluation.report.schema import Report
from genzoo.metrics.estimate import Estimate, display_name
from genzoo.metrics.metric_registry import current_figure


@dataclass(frozen=True)
class Failure:
    """A model that never came to be compared: at which stage, why, and the command that failed."""

    name: str
    stage: str
    message: str
    command: str


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other, and what is known of them beyond their folders."""

    entries: Sequence[Entry]
    failures: Sequence[Failure] = ()
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Run name to the commands that made it; others are rebuilt from their configurations."""
    notes: Sequence[str] = ()
    """What was the same for all of them."""
    reference: Path | None = None
    """A grid of real images."""

    @property
    def data(self) -> str:
        """The data set of all runs; "" without runs."""
        return self.entries[0].data if self.entries else ""

    def __str__(self) -> str:
        """The overview as text; "" without models."""
        return overview_text(self.entries, self.data) if self.entries else ""

    def commands_of(self, entry: Entry) -> Sequence[str]:
        """What makes and measures such a run."""
        return self.commands.get(entry.name) or (entry.command, entry.evaluate_command)

    def versions(self) -> str:
        """Of what wrote the page."""
        return f"genzoo {__version__}, torch {torch.__version__}, Python {platform.python_version()}"


@dataclass(frozen=True)
class EntryRecord:
    """One model of a comparison, for programs."""

    name: str
    run: str | None
    preset: str
    data: str
    spec: DataSpec
    parameters: int
    reason: str | None
    missing: Sequence[str]
    notes: Sequence[str]
    weights_sha256: str
    commands: Sequence[str]
    report: Report
    decode: str = "draw"


@dataclass(frozen=True)
class ComparisonRecord:
    """Everything that the page of a comparison shows, for programs."""

    data: str
    versions: str
    notes: Sequence[str]
    remarks: Sequence[str]
    runs: Sequence[EntryRecord]
    failures: Sequence[Failure]


def record(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain JSON."""
    runs = [
        EntryRecord(
            e.name, None if e.run is None else str(e.run), e.preset, e.data, e.spec, e.parameters, e.reason, e.missing,
            e.notes, e.weights_id(), comparison.commands_of(e), e.report,
            e.decode,
        )
        for e in comparison.entries
    ]  # fmt: skip
    content = ComparisonRecord(
        comparison.data, comparison.versions(), comparison.notes, overview.remarks(comparison.entries), runs,
        comparison.failures,
    )  # fmt: skip
    return finite(msgspec.to_builtins(content, enc_hook=str))


def write_page(comparison: Comparison, path: Path) -> None:
    """Writes the page to `path`, whole or not at all.

    Raises `GenzooError` where it cannot be written, or where there is a file that is no such page.
    """
    write_product(path, page_text(render(comparison)).encode())


def render(comparison: Comparison) -> str:
    """The page as HTML. Names and messages are escaped wherever they stand."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("genzoo.evaluation.comparison", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html.jinja").render(_content(comparison))


def _content(comparison: Comparison) -> dict[str, Any]:
    entries = list(comparison.entries)
    content: dict[str, Any] = {
        "comparison": comparison, "entries": entries, "colours": COLOURS, "maker": MADE_BY,
        "names": [e.name for e in entries], "own_likelihood": overview.with_likelihood(entries),
        "rows": table_rows, "display_name": display_name, "compact": compact,
        "ais": [e for e in entries if e.ais],
        "machine_text": machine_text, "versions_text": versions_text,
    }  # fmt: skip
    if not entries:
        return content
    return content | {
        "overview": overview.overview(entries), "quality": overview.quality_table(entries),
        "likelihood": overview.likelihood_table(entries), "memorisation": overview.memorisation_table(entries),
        "cost": overview.cost_table(entries), "others": overview.other_tables(entries),
        "remarks": overview.remarks(entries), "charts": charts(entries, figure_names(entries)),
        "samples": _with_reference(comparison, sample_pictures(entries)), "classes": class_pictures(entries),
        "class_names": class_names(entries), "typical": typical_pictures(entries),
        "neighbours": neighbour_pictures(entries), "work": work_pictures(entries),
        "reference_values": _reference_values(entries, lambda entry: entry.quality),
        "copies_of_real": _reference_values(entries, lambda entry: entry.memorisation),
        "baselines": next((e.baselines for e in entries if e.baselines), {}),
    }  # fmt: skip


def _with_reference(comparison: Comparison, samples: Sequence[Picture]) -> list[Picture]:
    """The samples, after as many real images where there are some."""
    path, first = comparison.reference, next((p for p in samples if p.uri), None)
    if path is None or first is None or not os.path.lexists(path):
        return list(samples)
    try:
        tiles = tiles_of(path, path.parent, comparison.entries[0].spec.shape)
    except GenzooError as error:
        return [Picture("real test images", problem=str(error)), *samples]
    if tiles is None:
        return list(samples)
    columns, rows = first.width // tiles.side[0], first.height // tiles.side[1]
    real = picture("real test images", tiles.cut(columns, rows), "for comparison")
    return [real, *samples]


def _reference_values(entries: Sequence[Entry], quality_of: QualityOf) -> list[tuple[str, Estimate]]:
    """Figures of samples with the reference value that real images have, one of each."""
    found: dict[str, Estimate] = {}
    for part in filter(None, map(quality_of, entries)):
        for name, figure in part.figures.items():
            name, figure = current_figure(name, figure)
            if figure.reference is not None:
                found.setdefault(name, figure)
    return list(found.items())
