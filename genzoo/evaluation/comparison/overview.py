"""Which tables a comparison consists of, and what must be said beside them."""

from collections.abc import Callable, Mapping, Sequence

from genzoo.evaluation.comparison.entries import Entry
from genzoo.evaluation.comparison.tables import (
    OVERVIEW_FIGURES,
    Column,
    CostColumn,
    Quality,
    QualityOf,
    Table,
    cost_column,
    figure_cell,
    figure_names,
    gap_column,
    likelihood_column,
    protocol_text,
    quality_column,
    sizes_text,
    text_column,
)
from genzoo.evaluation.cost import Cost, machine_text
from genzoo.metrics.estimate import Estimate


def overview(entries: Sequence[Entry]) -> Table:
    """What a person looks at first: samples, likelihood, speed, cost."""
    quality = [quality_column(entries, name) for name in figure_names(entries)[:OVERVIEW_FIGURES]]
    columns = [*quality, likelihood_column(entries)]
    costs = {column.title: column for column in cost_table(entries).columns}
    columns += [costs[name] for name in ("samples/s", "calls/sample", "train CPU-min", "parameters")]
    return Table("Overview", columns)


def quality_table(entries: Sequence[Entry]) -> Table:
    """All figures of samples."""
    columns = [quality_column(entries, name) for name in figure_names(entries)]
    columns[1:1] = _published_columns(entries)
    extractors = [
        f"{e.quality.extractor.name} {e.quality.extractor.identity[:12]}" if e.quality else ""
        for e in entries
    ]
    ways = [e.decode for e in entries]
    return Table(
        "Sample quality",
        [*columns, text_column("feature extractor", extractors), text_column("decoding", ways)],
    )


def _published_columns(entries: Sequence[Entry]) -> list[Column]:
    """The Fréchet distance in the features of published networks, as far as any run has it."""
    parts = [e.report.published for e in entries if e.report.published is not None]
    names = dict.fromkeys(name for part in parts for name in part.extractors)

    def of(name: str) -> QualityOf:
        return lambda entry: entry.report.published and entry.report.published.alone(name)

    return [quality_column(entries, name, of(name), "published") for name in names]


def likelihood_table(entries: Sequence[Entry]) -> Table:
    """Bits/dim, the gap to training images, and how they were computed; families without are not in it."""
    own = [e for e in entries if e.reason is None]
    ways = [protocol_text(e.likelihood.details) if e.likelihood else "" for e in own]
    sets = [f"{e.likelihood.test_id} ({e.likelihood.images:,})" if e.likelihood else "" for e in own]
    columns = [likelihood_column(own), gap_column(own), text_column("test set (images)", sets)]
    return Table("Likelihood", [*columns, text_column("protocol", ways)])


def with_likelihood(entries: Sequence[Entry]) -> list[Entry]:
    """The runs of `likelihood_table`."""
    return [e for e in entries if e.reason is None]


def memorisation_table(entries: Sequence[Entry]) -> Table:
    """Whether samples are copies of training images, by all figures that were measured."""

    def quality_of_memorisation(entry: Entry) -> Quality | None:
        return entry.memorisation

    columns = [
        quality_column(entries, name, quality_of_memorisation, "memorisation")
        for name in figure_names(entries, quality_of_memorisation)
    ]
    return Table("Memorisation", columns)


def other_tables(entries: Sequence[Entry]) -> list[tuple[Table, Sequence[Entry]]]:
    """Further sections that at least one report has, with the runs that have them."""
    names = dict.fromkeys(name for e in entries for name in e.others)
    titles = {
        "classes": "Classes of samples, drawn without asking",
        "modes": "Modes of the data that samples hit",
        "classification": "Generative classification",
    }
    found = []
    for name in names:
        own = [e for e in entries if e.others.get(name)]
        if own:
            title = titles.get(name, name.capitalize())
            found.append((_flat_table(title, own, [e.others[name] for e in own]), own))
    return found


def _flat_table(title: str, entries: Sequence[Entry], figures: Sequence[Mapping[str, Estimate]]) -> Table:
    names = dict.fromkeys(name for own in figures for name in own)
    columns = []
    for name in names:
        cells = [
            figure_cell(figure, sizes_text(figure) if figure else "", entry.evaluate_command)
            for own, entry in zip(figures, entries, strict=True)
            for figure in [own.get(name)]
        ]
        there = [own[name] for own in figures if name in own]
        better = next((f.higher_is_better for f in there), None)
        groups = {cell.group: cell.group for cell in cells if cell.value is not None}
        columns.append(Column(name, cells, better, groups=groups))
    return Table(title, columns)


def trained_on(cost: Cost) -> str:
    """The machine of the training's times."""
    return machine_text(cost.training.machine if cost.training else None) or machine_text(cost.machine)


def measured_on(cost: Cost) -> str:
    """The machine of the times of drawing and scoring."""
    return machine_text(cost.machine)


def _training(name: str, unit: float = 1.0) -> Callable[[Entry], float | None]:
    """A figure of training's cost, in so many of its units."""

    def of(entry: Entry) -> float | None:
        value = getattr(entry.cost.training, name) if entry.cost and entry.cost.training else None
        return None if value is None else value / unit

    return of


def _drawing(of: Callable[[Cost], float | None]) -> Callable[[Entry], float | None]:
    return lambda entry: of(entry.cost) if entry.cost else None


COSTS: Sequence[CostColumn] = (
    CostColumn("parameters", lambda e: float(e.parameters)),
    CostColumn("train min", _training("seconds", 60), False, trained_on, "Wall clock"),
    CostColumn("train CPU-min", _training("cpu_seconds", 60), False, trained_on),
    CostColumn("images seen", _training("images_seen")),
    CostColumn("peak MiB", _training("peak_memory_mib"), False, trained_on, "Of training"),
    CostColumn("calls/sample", _drawing(lambda c: c.network_calls.most), False, None, "Network passes"),
    CostColumn("samples/s", _drawing(lambda c: c.sampling_images_per_second), True, measured_on),
    CostColumn("likelihoods/s", _drawing(lambda c: c.likelihood_images_per_second), True, measured_on),
)


def cost_table(entries: Sequence[Entry]) -> Table:
    """What training and drawing cost."""
    columns = [cost_column(entries, cost) for cost in COSTS]
    machines = text_column("machine", [measured_on(e.cost) if e.cost else "" for e in entries])
    return Table("Cost", [*columns, machines])


def remarks(entries: Sequence[Entry]) -> list[str]:
    """What is missing and what keeps figures from being ranked together, one line each."""
    lines = [
        f"{e.name}: {', '.join(e.missing)} not measured; measure with: {e.evaluate_command}"
        for e in entries
        if e.missing
    ]
    lines += [f"{e.name}: {note}" for e in entries for note in e.notes]
    lines += [f"{e.name}: {e.quality.remark}" for e in entries if e.quality and e.quality.remark]
    lines += [f"{e.name} has no likelihood: {e.reason}" for e in entries if e.reason]
    divided: dict[str, list[str]] = {}
    for column in overview(entries).columns:
        if column.separated:
            divided.setdefault(" | ".join(column.groups.values()), []).append(column.title)
    lines += [
        f"ranked within groups only: {', '.join(titles)}: {groups}" for groups, titles in divided.items()
    ]
    return lines
