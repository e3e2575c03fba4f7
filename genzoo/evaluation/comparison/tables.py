"""Tables of runs whose columns know which of their figures may be ranked together.

A `Cell` belongs to a group: figures of one group were measured alike. Whoever orders rows by a column orders them
within its groups and says where one ends.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.evaluation.comparison.entries import Entry
from genzoo.evaluation.cost import Cost
from genzoo.evaluation.report.sample_schema import MemorisationResult, QualityResult
from genzoo.evaluation.report.schema import LikelihoodResult
from genzoo.metrics.estimate import Estimate, display_name
from genzoo.metrics.metric_registry import METRICS, current_figure

MISSING, OUT_OF_DATE = "not measured", "out of date"
NO_FIGURE = "no figure"
UNTOLD = "without the figure of real images, which is best"
KIND_WORDS = {
    LikelihoodKind.EXACT: "exact (=)",
    LikelihoodKind.LOWER_BOUND: "bounds (<=): the true figure is at most this one",
    LikelihoodKind.ESTIMATE: "estimates (~): may err either way",
}
LEADING = (*METRICS.headlines, "kid", "precision", "recall", "coverage", "density")
"""Figures of samples that tell most, the first of them in one number; the others follow as reported."""
OVERVIEW_FIGURES = 4


@dataclass(frozen=True)
class Cell:
    """`value` orders rows (None: missing, always last), `text` and `detail` are read, `note` says more.

    `group` see above; `best` marks the best of its group and what `interval` does not tell from it. `target` is the
    value that is best where that is neither end: rows are then ordered by how far they are from it.
    """

    value: float | None
    text: str
    note: str = ""
    group: str = ""
    detail: str = ""
    interval: tuple[float, float] | None = None
    best: bool = False
    target: float | None = None

    @property
    def rank(self) -> float | None:
        """What rows are ordered by."""
        return self.value if self.value is None or self.target is None else abs(self.value - self.target)

    @property
    def ranks(self) -> tuple[float, float] | None:
        """The least and the greatest `rank` within the interval."""
        if self.value is None or self.rank is None:
            return None
        low, high = self.interval or (self.value, self.value)
        if self.target is None:
            return low, high
        ends = abs(low - self.target), abs(high - self.target)
        return (0.0 if low <= self.target <= high else min(ends)), max(ends)

    @property
    def words(self) -> str:
        """What is read, in one line."""
        return f"{self.text} {self.detail}".strip()


@dataclass(frozen=True)
class Column:
    """One figure of all runs. `higher_is_better` is None where neither end is better; what is, cells may tell.

    `groups` tells in words what the rows of each group have in common; `warnings` what they have not.
    """

    title: str
    cells: Sequence[Cell]
    higher_is_better: bool | None = None
    help: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    warns: bool = False
    words: bool = False
    """Whether cells are words, which nothing ranks."""

    @property
    def sorts(self) -> bool:
        """Whether any run has this figure."""
        return any(cell.value is not None for cell in self.cells)

    @property
    def two_sided(self) -> bool:
        """Whether figures are worse in both directions away from the best one."""
        return any(cell.target is not None for cell in self.cells)

    @property
    def sense(self) -> str:
        """Which figures are best, in words."""
        targets = {cell.target for cell in self.cells if cell.target is not None}
        if targets:
            return "nearest to 0 is best" if targets == {0.0} else "nearest to that of real images is best"
        return {True: "higher is better", False: "lower is better", None: ""}[self.higher_is_better]

    @property
    def separated(self) -> bool:
        """Whether rows in the order of this column must be told apart by groups."""
        return len(self.groups) > 1 or self.warns

    def order(self) -> list[tuple[str, list[int]]]:
        """Rows as (words of a group, indices from the best on); those without a figure come last."""
        sign = -1 if self.higher_is_better else 1
        names = list(self.groups) or list(dict.fromkeys(cell.group for cell in self.cells))
        blocks = []
        for name in names:
            rows = [i for i, c in enumerate(self.cells) if c.value is not None and c.group == name]
            if rows:
                rows.sort(key=lambda i: sign * (self.cells[i].rank or 0.0))
                blocks.append((self.groups.get(name, name), rows))
        missing = [i for i, c in enumerate(self.cells) if c.value is None]
        return blocks + ([(NO_FIGURE, missing)] if missing else [])


@dataclass(frozen=True)
class Table:
    """Columns over the same runs; the rows' heads are the runs' names. `leading` is the column to begin with."""

    title: str
    columns: Sequence[Column]
    leading: int = 0


def table_rows(table: Table, count: int) -> list[tuple[str | None, int]]:
    """Rows of a table as (words of a group, -1) before each group and (None, index of a run)."""
    if not table.columns or not count:
        return [(None, i) for i in range(count)]
    column = table.columns[min(table.leading, len(table.columns) - 1)]
    rows: list[tuple[str | None, int]] = []
    for words, indices in column.order():
        rows += [(words, -1)] if column.separated and words else []
        rows += [(None, i) for i in indices]
    return rows


def text_column(title: str, texts: Sequence[str]) -> Column:
    """Words, which nothing ranks."""
    return Column(title, [Cell(None, text) for text in texts], words=True)


Quality = QualityResult | MemorisationResult
"""Figures of samples in the features of one extractor."""

QualityOf = Callable[[Entry], Quality | None]
"""Which figures of samples a column is about."""


# --- sample quality --------------------------------------------------------------------------------------------


def quality_of_run(entry: Entry) -> Quality | None:
    """What a run's report says of the quality of samples."""
    return entry.quality


def figure_names(entries: Sequence[Entry], quality_of: QualityOf = quality_of_run) -> list[str]:
    """All figures of samples that any run has, the one that tells most first."""
    names = list(dict.fromkeys(name for e in entries for name in _figures(quality_of(e))))

    def rank(name: str) -> int:
        return LEADING.index(name) if name in LEADING else len(LEADING)

    return sorted(names, key=rank)


def quality_column(
    entries: Sequence[Entry], name: str, quality_of: QualityOf = quality_of_run, part: str = "quality"
) -> Column:
    """One figure of samples, of a part of reports. Other extractors, images or numbers of samples make other groups."""
    cells, figures = [], [f for e in entries if (f := _figures(quality_of(e)).get(name)) is not None]
    for entry in entries:
        quality = quality_of(entry)
        figure = _figures(quality).get(name)
        group = quality_group(quality, figure) if quality and figure else ""
        reason = quality.missing.get(name) if quality else None
        cell = absent_cell(entry, part) if figure is None else figure_cell(figure, group)
        cells.append(Cell(None, "none", reason) if reason else cell)
    if any(cell.target is not None for cell in cells):
        cells = [
            cell if cell.target is not None or cell.value is None else replace(cell, group=UNTOLD)
            for cell in cells
        ]
    return figure_column(display_name(name), cells, figures)


def figure_column(title: str, cells: Sequence[Cell], figures: Sequence[Estimate]) -> Column:
    """The column of these cells, which are of these figures, with the best marked."""
    better = next((f.higher_is_better for f in figures if f.higher_is_better is not None), None)
    how = next((f.interval for f in figures if f.interval), None)
    groups = {cell.group: cell.group for cell in cells if cell.value is not None}
    column = Column(title, mark_best(cells, better), better, f"Interval: {how}" if how else "", groups)
    return replace(column, help="; ".join(filter(None, (column.help, column.sense))))


def quality_group(quality: Quality, figure: Estimate) -> str:
    """What two figures must share to be ranked together."""
    sizes = f"{figure.samples:,} samples against {figure.references:,} images"
    return f"{quality.test_id}, features {quality.extractor.name} {quality.extractor.identity[:12]}, {sizes}"


def _figures(quality: Quality | None) -> Mapping[str, Estimate]:
    """With the names and directions of today, whenever they were reported."""
    return dict(current_figure(name, figure) for name, figure in (quality.figures if quality else {}).items())


def absent_cell(entry: Entry, part: str) -> Cell:
    """Of a run whose report has no answer of `part`: it was not measured, or on other weights than there are now."""
    if part in entry.outdated:
        why = f"measured on other weights than there are now; measure anew with: {entry.evaluate_command}"
        return Cell(None, OUT_OF_DATE, f"{OUT_OF_DATE}: {why}")
    return Cell(None, "", f"{MISSING}: {entry.evaluate_command}")


def figure_cell(figure: Estimate | None, group: str = "", command: str = "") -> Cell:
    """A figure with its interval in brackets; its reference value and sizes are the note."""
    if figure is None:
        return Cell(None, "", f"{MISSING}: {command}" if command else MISSING)
    inside = None if figure.low is None or figure.high is None else (figure.low, figure.high)
    detail = "" if inside is None else f"[{compact(inside[0], 3)}, {compact(inside[1], 3)}]"
    notes = [] if figure.reference is None else [f"real against real images: {compact(figure.reference)}"]
    notes += [sizes_text(figure)] if sizes_text(figure) else []
    return Cell(
        figure.value, compact(figure.value), ", ".join(notes), group, detail, inside, target=figure.best
    )


def sizes_text(figure: Estimate) -> str:
    """What it was measured on.

    >>> sizes_text(Estimate(0.5, 500, 0)), sizes_text(Estimate(0.5, 2000, 1000))
    ('500 samples', '2,000 samples, 1,000 real images')
    """
    sizes = {"samples": figure.samples, "real images": figure.references}
    return ", ".join(f"{count:,} {what}" for what, count in sizes.items() if count)


def mark_best(cells: Sequence[Cell], higher_is_better: bool | None) -> list[Cell]:
    """In each group of two or more, marks the best and all that their intervals do not tell from it."""
    if higher_is_better is None and not any(cell.target is not None for cell in cells):
        return list(cells)
    sign = -1 if higher_is_better else 1
    best: dict[str, float] = {}
    for group in {c.group for c in cells}:
        members = [c for c in cells if c.group == group and c.value is not None]
        if len(members) > 1:
            first = min(members, key=lambda c: sign * (c.rank or 0.0))
            best[group] = max(sign * end for end in first.ranks or (0.0,))
    return [_marked(cell, sign, best.get(cell.group)) for cell in cells]


def _marked(cell: Cell, sign: int, limit: float | None) -> Cell:
    if cell.ranks is None or limit is None:
        return cell
    return replace(cell, best=min(sign * end for end in cell.ranks) <= limit)


# --- likelihood ------------------------------------------------------------------------------------------------


def likelihood_group(figure: LikelihoodResult) -> str:
    """What two likelihoods must share to be ranked together: images, kind, and whether labels are given."""
    given = ", given labels" if figure.conditional else ""
    return f"{figure.test_id}, {KIND_WORDS[figure.likelihood]}{given}"


def likelihood_column(entries: Sequence[Entry]) -> Column:
    """Bits/dim with the sign of its kind. Where protocols differ within a group, no best is marked."""
    cells = [_likelihood_cell(entry) for entry in entries]
    groups, mixed = {}, False
    for kind in sorted(KIND_WORDS, reverse=True):
        for e in entries:
            if e.likelihood and e.likelihood.likelihood is kind:
                group = likelihood_group(e.likelihood)
                remark = _mixture(entries, group)
                groups[group], mixed = group + remark, mixed or bool(remark)
    marked = mark_best(cells, False)
    cells = [m if groups.get(c.group) == c.group else c for m, c in zip(marked, cells, strict=True)]
    return Column("bits/dim", cells, False, "Of test images; lower is better", groups, mixed)


def _mixture(entries: Sequence[Entry], group: str) -> str:
    """What differs between the likelihoods of one group, in words; "" where nothing does."""
    members = [e.likelihood for e in entries if e.likelihood and likelihood_group(e.likelihood) == group]
    words = []
    if len({protocol_text(m.details) for m in members}) > 1:
        words.append("estimated in different ways (see Likelihood)")
    counts = sorted({m.images for m in members})
    if len(counts) > 1:
        words.append(f"on {counts[0]:,} to {counts[-1]:,} of the images")
    return f"; NOT ALIKE: {', '.join(words)}" if words else ""


def _likelihood_cell(entry: Entry) -> Cell:
    figure = entry.likelihood
    if figure is None and entry.reason is not None:
        return Cell(None, "none", entry.reason)
    if figure is None:
        return absent_cell(entry, "likelihood")
    bits = figure.bits_per_dim
    error = "" if bits.stderr is None else f"± {bits.stderr:.3f}"
    inside = None if bits.low is None or bits.high is None else (bits.low, bits.high)
    note = f"{figure.images:,} images of {figure.test_id}. {protocol_text(figure.details)}"
    text = f"{figure.symbol} {bits.value:.3f}"
    return Cell(bits.value, text, note, likelihood_group(figure), error, inside)


def protocol_text(details: Mapping[str, Any]) -> str:
    """The settings among the details of a likelihood; what was measured (floats, lists) is none.

    >>> protocol_text({"K": 64, "elbo": -9.5, "conditional": False, "kl_per_group": [1.0]})
    'K 64'
    """
    settings = {
        key: value
        for key, value in details.items()
        if isinstance(value, (str, int)) and key not in ("conditional", "nfe") and value is not False
    }
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items())


def gap_column(entries: Sequence[Entry]) -> Column:
    """How many bits/dim worse test images are than training images."""
    cells = []
    for entry in entries:
        gap = entry.likelihood.gap.bits_per_dim if entry.likelihood and entry.likelihood.gap else None
        group = likelihood_group(entry.likelihood) if entry.likelihood and gap else ""
        absent = Cell(None, "none", entry.reason) if entry.reason else absent_cell(entry, "likelihood")
        cells.append(figure_cell(gap, group) if gap else absent)
    words = "Bits/dim of test images less those of training images: the generalisation gap"
    groups = {cell.group: cell.group for cell in cells if cell.value is not None}
    return Column("generalisation gap", cells, None, words, groups)


# --- cost ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CostColumn:
    """A figure of cost: its title, the figure of a run, which end is better, and on what machine it was measured."""

    title: str
    of: Callable[[Entry], float | None]
    higher_is_better: bool | None = None
    where: Callable[[Cost], str] | None = None
    help: str = ""


def cost_column(entries: Sequence[Entry], cost: CostColumn) -> Column:
    """One figure of cost; other machines make other groups."""
    cells = []
    for entry in entries:
        value = cost.of(entry)
        if value is None:
            cells.append(absent_cell(entry, "cost"))
            continue
        group = ""
        if cost.where and entry.cost:
            group = f"measured on {cost.where(entry.cost) or 'an unknown machine'}"
        cells.append(Cell(value, compact(value), "", group))
    groups = {cell.group: cell.group for cell in cells if cell.group}
    return Column(cost.title, cells, cost.higher_is_better, cost.help, groups)


def compact(value: float, figures: int = 4) -> str:
    """A number of about so many figures.

    >>> [compact(v) for v in (0.0, 0.00012345, 0.12345, 12.345, 1234.5, 2792993)]
    ['0', '0.0001234', '0.1235', '12.35', '1,234', '2,792,993']
    """
    if value and abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{figures}g}"
