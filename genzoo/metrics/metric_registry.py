"""The metrics of samples, one row each: a name, what measures it, and how its interval is made.

    register("mean distance", mean_distance)     # a function (real [n, d], fake [m, d]) -> float

From then on every report on sample quality holds the figure, with an interval by halves and its reference value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

from torch import Tensor

from genzoo.core.attempts import Attempts
from genzoo.core.errors import GenzooError
from genzoo.metrics.diversity import sliced_wasserstein
from genzoo.metrics.estimate import Direction, Estimate
from genzoo.metrics.frechet import frechet_distance, frechet_extrapolated
from genzoo.metrics.intervals import PAIRS
from genzoo.metrics.kernels import kid
from genzoo.metrics.neighbours import neighbour_metrics
from genzoo.metrics.quality import (
    FeatureSets,
    authenticity_figure,
    copying_figure,
    density_figure,
    extreme_figure,
    halved,
    likelihood_divergence,
    mmd_value,
    neighbour_figure,
    vendi_about_mean,
    with_errors,
)

Question = Literal["quality", "memorisation"]
"""Whether samples are like real images, or like training images."""


@final
@dataclass(frozen=True)
class MetricRow:
    """One metric: `measure(row, sets)` makes its figure by `function`, in the way that its interval is made."""

    name: str
    function: Callable[..., Any]
    measure: Callable[["MetricRow", FeatureSets], Estimate]
    direction: Direction = "lower"
    question: Question = "quality"
    headline: bool = False
    """Whether it is among the few that a person reads first."""
    random: str = ""
    """What the generator that the function takes is seeded by; "" for a function that takes none."""

    def bound(self, sets: FeatureSets) -> Callable[[Tensor, Tensor], Any]:
        """The function of two matrices of features, with the same random numbers each time."""
        if not self.random:
            return self.function
        return lambda real, fake: self.function(real, fake, generator=sets.generator(self.random))


# --- ways to an interval ---------------------------------------------------------------------------------------


def by_halves(row: MetricRow, sets: FeatureSets) -> Estimate:
    """Of a function that gives a number: against the evaluated images, by random halves."""
    return halved(sets, row.name, row.bound(sets), draws=2 * PAIRS)


def by_distance(row: MetricRow, sets: FeatureSets) -> Estimate:
    """As `by_halves`, of a distance between distributions."""
    return halved(sets, row.name, row.bound(sets), distance=True)


def by_distance_to_train(row: MetricRow, sets: FeatureSets) -> Estimate:
    """As `by_distance`, against as many training images."""
    return halved(sets, row.name, row.bound(sets), sets.train_like_real, distance=True)


def by_error(row: MetricRow, sets: FeatureSets) -> Estimate:
    """Of a function that gives a value and its standard error."""
    return with_errors(sets, row.bound(sets))


def by_balls(row: MetricRow, sets: FeatureSets) -> Estimate:
    """Of the shares of images with near neighbours, which one pass over the distances gives together."""
    return neighbour_figure(sets, row.name)


def by_extremes(row: MetricRow, sets: FeatureSets) -> Estimate:
    """Of the largest differences of such shares, from the same pass."""
    return extreme_figure(sets, row.name)


def by_itself(row: MetricRow, sets: FeatureSets) -> Estimate:
    """Of a function of all sets that makes the figure itself."""
    return row.function(sets)


def by_answer(row: MetricRow, sets: FeatureSets) -> Estimate:
    """Of a function from outside: by its standard error where it gives one, else by halves.

    What goes wrong in it costs this figure alone. Raises `GenzooError` in its place.
    """
    try:
        answer = row.function(sets.real, sets.samples)
        if hasattr(answer, "value") and hasattr(answer, "stderr"):
            return by_error(row, sets)
        number = lambda real, fake: float(row.function(real, fake))  # noqa: E731
        return halved(sets, row.name, number)
    except GenzooError:
        raise
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise GenzooError(f"the metric {row.name} failed ({line}): look at the function") from error


# --- the rows --------------------------------------------------------------------------------------------------


def fidelity(real: Tensor, fake: Tensor) -> float:
    """1 less the share of generated features `[m, d]` that lie too far from real ones `[n, d]`; see
    `genzoo.metrics.typicality`."""
    return neighbours_of(real, fake, "fidelity")


def variety(real: Tensor, fake: Tensor) -> float:
    """1 less the share of real features `[n, d]` that too few generated ones `[m, d]` come near; see
    `genzoo.metrics.typicality`."""
    return neighbours_of(real, fake, "variety")


def precision(real: Tensor, fake: Tensor) -> float:
    """The share of generated features `[m, d]` that lie in a ball about a real one `[n, d]`."""
    return neighbours_of(real, fake, "precision")


def recall(real: Tensor, fake: Tensor) -> float:
    """The share of real features `[n, d]` that lie in a ball about a generated one `[m, d]`."""
    return neighbours_of(real, fake, "recall")


def density(real: Tensor, fake: Tensor) -> float:
    """How many balls about real features `[n, d]` hold a generated one `[m, d]`, over how many should."""
    return neighbours_of(real, fake, "density")


def coverage(real: Tensor, fake: Tensor) -> float:
    """The share of real features `[n, d]` whose ball holds a generated one `[m, d]`."""
    return neighbours_of(real, fake, "coverage")


def neighbours_of(real: Tensor, fake: Tensor, name: str) -> float:
    """One of those of `genzoo.metrics.neighbours.neighbour_metrics`, which gives all with their errors."""
    return getattr(neighbour_metrics(real, fake), name)


OWN = (
    MetricRow("frechet", frechet_distance, by_distance, headline=True),
    MetricRow("fidelity", fidelity, by_extremes, "higher", headline=True),
    MetricRow("variety", variety, by_extremes, "higher", headline=True),
    MetricRow("frechet_train", frechet_distance, by_distance_to_train),
    MetricRow("frechet_infinity", frechet_extrapolated, by_error, random="frechet_infinity"),
    MetricRow("kid", kid, by_error),
    MetricRow("mmd", mmd_value, by_distance),
    MetricRow("sliced_wasserstein", sliced_wasserstein, by_distance, random="directions"),
    MetricRow("precision", precision, by_balls, "higher"),
    MetricRow("recall", recall, by_balls, "higher"),
    MetricRow("density", density_figure, by_itself, "nearest real"),
    MetricRow("coverage", coverage, by_balls, "higher"),
    MetricRow("vendi", vendi_about_mean, by_halves, "nearest real"),
    MetricRow("fld", likelihood_divergence, by_itself),
    MetricRow("authenticity", authenticity_figure, by_itself, "nearest real", "memorisation"),
    MetricRow("ct", copying_figure, by_itself, "nearest 0", "memorisation"),
)


@final
class MetricRegistry:
    """Rows by name: genzoo's own, which nobody can replace, and those that were registered."""

    def __init__(self, own: tuple[MetricRow, ...] = OWN) -> None:
        self._own = {row.name: row for row in own}
        self._more: dict[str, MetricRow] = {}

    def add(self, row: MetricRow) -> None:
        """Adds a row, or replaces one that was added. Raises `GenzooError` for a name of genzoo's own."""
        if row.name in self._own:
            raise GenzooError(f"{row.name!r} is a metric of genzoo's own: register yours under another name")
        self._more[row.name] = row

    def remove(self, name: str) -> None:
        """Takes back what `add` did."""
        self._more.pop(name, None)

    @property
    def rows(self) -> Mapping[str, MetricRow]:
        """All of them, genzoo's own first."""
        return {**self._own, **self._more}

    @property
    def headlines(self) -> tuple[str, ...]:
        """The names of those that are read first, in their order."""
        return tuple(name for name, row in self.rows.items() if row.headline)

    def figures(
        self, sets: FeatureSets, question: Question = "quality"
    ) -> tuple[dict[str, Estimate], dict[str, str]]:
        """All figures by name, and why there is none of those that the features do not allow."""
        rows = [row for row in self.rows.values() if row.question == question]
        return collected(
            {
                row.name: lambda row=row: {row.name: row.measure(row, sets).directed(row.direction)}
                for row in rows
            }
        )


METRICS = MetricRegistry()
"""The registry that reports are made with."""


def current_figure(name: str, figure: Estimate) -> tuple[str, Estimate]:
    """A figure of a report, which another version may have written, with its name and direction of today.

    What was once called C_T had a variance of 1 whatever the number of cells, and is another figure than C_T.
    Directions of metrics from outside are those of the report.
    """
    if name == "ct" and "z-score" in (figure.interval or ""):
        return "ct_standardised", figure.directed("nearest 0")
    own = {row.name: row for row in OWN}.get(name)
    return name, figure if own is None else figure.directed(own.direction)


def register(
    name: str,
    function: Callable[..., Any],
    *,
    higher_is_better: bool | None = False,
    direction: Direction | None = None,
) -> None:
    """Makes `function(real [n, d], fake [m, d])` of float64 features a figure of every report on sample quality.

    It gives a number, whose interval is then made by random halves of both sets, or an object with `value` and
    `stderr`. What is best is said by `higher_is_better` (None: neither end), or by `direction` where that is
    "nearest real", what real images get, or "nearest 0". Registering a name again replaces it. Raises `GenzooError` for
    a name of genzoo's own or an empty one, for what is no function, and for an unknown direction.
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise GenzooError(f"a metric needs a name to be shown by, got {name!r}")
    if not callable(function):
        raise GenzooError(f"a metric is a function of real and generated features, got {function!r}")
    if direction is None:
        direction = "neither" if higher_is_better is None else "higher" if higher_is_better else "lower"
    if direction not in get_args(Direction):
        raise GenzooError(f"a direction is one of {', '.join(get_args(Direction))}, got {direction!r}")
    METRICS.add(MetricRow(name, function, by_answer, direction))


def collected(
    makers: Mapping[str, Callable[[], dict[str, Estimate]]],
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """What the makers make, and the reasons of those that refuse or fail."""
    figures: dict[str, Estimate] = {}
    attempts = Attempts()
    for name, make in makers.items():
        figures |= attempts(name, make) or {}
    return figures, attempts.missing
