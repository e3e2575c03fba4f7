"""Scatter plots as SVG text: points with intervals, names beside them, colours and shapes of the page's style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.evaluation.comparison.entries import Entry
from genzoo.evaluation.comparison.tables import Column, compact, likelihood_column, quality_column
from genzoo.evaluation.cost import machine_text
from genzoo.metrics.estimate import display_name

WIDTH, HEIGHT = 560, 400
LEFT, RIGHT, TOP, BOTTOM = 72, 16, 16, 52
COLOURS = 10
WIDE = 20.0
"""Highest over lowest figure from which on a scale is logarithmic."""
SHAPES = {
    LikelihoodKind.EXACT: "circle",
    LikelihoodKind.LOWER_BOUND: "left",
    LikelihoodKind.ESTIMATE: "diamond",
}


@dataclass(frozen=True)
class Point:
    """A run in a plot: `x`, `y` and their intervals; `colour` numbers the run, `shape` the kind of its figure."""

    name: str
    x: float
    y: float
    colour: int
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None
    shape: str = "circle"
    note: str = ""


@dataclass(frozen=True)
class Axis:
    """A scale from figures to pixels `begin` .. `end`."""

    title: str
    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    @staticmethod
    def over(values: Sequence[float], title: str, begin: float, end: float, *, log: bool = False) -> "Axis":
        """One that holds all `values` with a margin."""
        ends = (min(values), max(values))
        if log:
            margin = max(0.08 * math.log(ends[1] / ends[0]), 0.3)
            return Axis(title, ends[0] * math.exp(-margin), ends[1] * math.exp(margin), begin, end, True)
        margin = 0.08 * (ends[1] - ends[0]) or 0.05 * abs(ends[0]) or 1.0
        return Axis(title, ends[0] - margin, ends[1] + margin, begin, end)

    def at(self, value: float) -> float:
        """The pixel of `value`."""
        low, high = (math.log(self.low), math.log(self.high)) if self.logarithmic else (self.low, self.high)
        here = math.log(value) if self.logarithmic else value
        return self.begin + (self.end - self.begin) * (here - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round figures within the axis."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        if self.logarithmic:
            wide = self.high / self.low > 1000
            locator = LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=12)
        else:
            locator = MaxNLocator(6)
        return [float(v) for v in locator.tick_values(self.low, self.high) if self.low <= v <= self.high]


@dataclass(frozen=True)
class Chart:
    """One plot, with the words for what it cannot show."""

    title: str
    svg: Markup
    left_out: Sequence[str]


@dataclass(frozen=True)
class Charts:
    """The plots of one figure of sample quality."""

    figure: str
    charts: Sequence[Chart]


def charts(entries: Sequence[Entry], names: Sequence[str]) -> list[Charts]:
    """For each figure of sample quality: against the time of a sample, and against bits/dim."""
    return [
        Charts(display_name(name), [_against_time(entries, name), _against_bits(entries, name)])
        for name in names
    ]


def _against_time(entries: Sequence[Entry], name: str) -> Chart:
    column, points, missing = quality_column(entries, name), [], []
    machines = [machine_text(e.cost.machine) for e in entries if e.cost and e.cost.sampling_images_per_second]
    machine = max(set(machines), key=machines.count) if machines else ""
    main = _main_group(column)
    for i, entry in enumerate(entries):
        cell, speed = column.cells[i], entry.cost.sampling_images_per_second if entry.cost else None
        if cell.value is None or not speed or not entry.cost:
            missing.append(
                f"{entry.name} ({'no ' + column.title if cell.value is None else 'no sampling time'})"
            )
        elif cell.group != main:
            missing.append(f"{entry.name} (evaluated otherwise)")
        elif machine_text(entry.cost.machine) != machine:
            missing.append(f"{entry.name} (timed on another machine)")
        else:
            points.append(
                Point(entry.name, 1000 / speed, cell.value, i, None, cell.interval, note=cell.words)
            )
    title = f"{column.title} against the time of a sample"
    return Chart(title, scatter(points, "milliseconds per sample", _with_sense(column), log=True), missing)


def _against_bits(entries: Sequence[Entry], name: str) -> Chart:
    column, bits, points, missing = quality_column(entries, name), likelihood_column(entries), [], []
    sets = [e.likelihood.test_id for e in entries if e.likelihood]
    test_id, main = max(set(sets), key=sets.count) if sets else "", _main_group(column)
    for i, entry in enumerate(entries):
        cell, own = column.cells[i], entry.likelihood
        if cell.value is None or own is None:
            reason = "no likelihood" if entry.reason else "no bits/dim"
            missing.append(f"{entry.name} ({'no ' + column.title if cell.value is None else reason})")
        elif cell.group != main or own.test_id != test_id:
            missing.append(
                f"{entry.name} ({'evaluated otherwise' if cell.group != main else 'other test images'})"
            )
        else:
            interval, note = bits.cells[i].interval, f"{cell.words}; {bits.cells[i].words} bits/dim"
            shape = SHAPES[own.likelihood]
            points.append(
                Point(entry.name, own.bits_per_dim.value, cell.value, i, interval, cell.interval, shape, note)
            )
    title = f"{column.title} against bits/dim"
    return Chart(title, scatter(points, "bits/dim (lower is better)", _with_sense(column)), missing)


def _main_group(column: Column) -> str:
    """The group that most runs belong to."""
    groups = [cell.group for cell in column.cells if cell.value is not None]
    return max(dict.fromkeys(groups), key=groups.count, default="")


def _with_sense(column: Column) -> str:
    return f"{column.title} ({column.sense})" if column.sense else column.title


# --- drawing ---------------------------------------------------------------------------------------------------


def scatter(points: Sequence[Point], x_title: str, y_title: str, *, log: bool = False) -> Markup:
    """The plot of `points`, or a sentence where there are none."""
    if not points:
        return Markup('<p class="nothing">Nothing to draw: no run has both figures.</p>')
    xs = [v for p in points for v in (p.x, *(p.x_interval or ()))]
    ys = [v for p in points for v in (p.y, *(p.y_interval or ()))]
    x = Axis.over(xs, x_title, LEFT, WIDTH - RIGHT, log=log)
    y = Axis.over(ys, y_title, HEIGHT - BOTTOM, TOP, log=_spans(ys))
    parts = [*_frame(x, y), *(_bars(p, x, y) for p in points), *_labels(points, x, y)]
    parts += [_mark(p, x, y) for p in points]
    names = ", ".join(p.name for p in points)
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_title)} over {escape(x_title)}: '
    return Markup(f'{head}{escape(names)}">{"".join(parts)}</svg>')


def _spans(values: Sequence[float]) -> bool:
    """Whether figures, all above 0, differ so much that an even scale would show one run and a crowd."""
    return min(values) > 0 and max(values) > WIDE * min(values)


def _frame(x: Axis, y: Axis) -> list[str]:
    parts = []
    for value in x.ticks():
        at = x.at(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{compact(value)}</text>'
        )
    for value in y.ticks():
        at = y.at(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{compact(value)}</text>'
        )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">'
        f"{escape(x.title)}</text>"
    )
    parts.append(
        f'<text class="axis" transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.title)}</text>"
    )
    return parts


def _bars(point: Point, x: Axis, y: Axis) -> str:
    """The intervals of a point as thin lines."""
    px, py, lines = x.at(point.x), y.at(point.y), []
    if point.y_interval:
        low, high = (y.at(v) for v in point.y_interval)
        lines.append(f'x1="{px:.1f}" x2="{px:.1f}" y1="{low:.1f}" y2="{high:.1f}"')
    if point.x_interval:
        low, high = (x.at(v) for v in point.x_interval)
        lines.append(f'x1="{low:.1f}" x2="{high:.1f}" y1="{py:.1f}" y2="{py:.1f}"')
    return "".join(f'<line class="bar s{point.colour % COLOURS}" {line}/>' for line in lines)


def _mark(point: Point, x: Axis, y: Axis) -> str:
    px, py = x.at(point.x), y.at(point.y)
    outlines = {
        "circle": f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5.5"/>',
        "left": f'<path d="M{px - 7:.1f} {py:.1f}l12 -6.5v13z"/>',
        "diamond": f'<path d="M{px:.1f} {py - 7:.1f}l7 7l-7 7l-7 -7z"/>',
    }
    title = escape(f"{point.name}: {point.note}" if point.note else point.name)
    return f'<g class="mark s{point.colour % COLOURS}" tabindex="0"><title>{title}</title>{outlines[point.shape]}</g>'


def _labels(points: Sequence[Point], x: Axis, y: Axis) -> list[str]:
    """Names beside their points, clear of intervals, and pushed away where they would lie on each other."""
    taken: list[tuple[float, float, float]] = [(x.at(p.x) - 6, x.at(p.x) + 6, y.at(p.y)) for p in points]
    parts = []
    for point in sorted(points, key=lambda p: y.at(p.y)):
        px, py, width = x.at(point.x), y.at(point.y), 6.6 * len(point.name)
        right = px + 10 + width < WIDTH - RIGHT
        begin = px + 10 if right else px - 10 - width
        height = next(
            py + shift
            for shift in (-7, 9, -20, 22, -33, 35, -46, 48, -59, 65)
            if shift == 65 or not any(_meets((begin, begin + width, py + shift), other) for other in taken)
        )
        taken.append((begin, begin + width, height))
        anchor, at = ("start", px + 10) if right else ("end", px - 10)
        parts.append(
            f'<text class="name" x="{at:.1f}" y="{height + 4:.1f}" text-anchor="{anchor}">{escape(point.name)}</text>'
        )
    return parts


def _meets(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and abs(a[2] - b[2]) < 12
