"""95% intervals of figures: Wilson's of shares, and those by parts of the images of figures that no formula covers.

A bootstrap would draw rows with replacement. Copies of rows are what neighbours, kernels and ranks of covariances must
not see: the Fréchet distance gains about its own bias, and k-nearest neighbours become copies at distance 0. Here all
sets are cut at random into two halves (McCarthy 1969; Politis & Romano 1994) and the figure T is taken of each:

    odd    = E (T_1 - T_2)^2 / 4        over cuts; its mean over data is Var(T of n / 2 rows) / 2
    even   = Var (T_1 + T_2) / 2        over cuts of the same data

`odd` is the variance of T where that falls like 1 / n, as it does for averages and for counts of neighbours, whose
balls move with the images. Let T be a polynomial in the empirical measures (a distance) and V_k the variance of its
part of degree k (Hoeffding 1948). A half is the whole plus a deviation as large as the whole's own, hence

    odd    = sum_k 2^(k-1) V_k,    even = sum_k (2^(k-1) - 1) V_k,    odd - even = sum_k V_k = Var T

Between equal distributions a distance has no part of degree 1, and `odd` alone is twice too large. Since `even` is
noisy, only what `odd` has beyond 2 even counts as degree 1.

A share p of n images has the effective number n / D, where the design effect D is the variance of p over that of
independent images, p (1 - p) / n, measured at halves; Wilson's interval of n / D images stays within 0 and 1 and has
a width at p = 0 and 1, too (Wilson 1927; Korn & Graubard 1998).

`python -m benchmarks.interval_coverage` measures what all of them cover.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.metrics.estimate import REACH, Estimate, Metric, check_features

PAIRS = 20
"""Cuts into halves behind an interval."""
FEWEST_DRAWS = 10
"""Cuts below which a variance is a guess."""
MOST_ROWS = 8000
"""Rows of all sets together that parts are made of: of more rows a random part stands for all."""
LEVEL = 0.95
WILSON = "95% over images, Wilson's"
"""Interval of a share of independent images."""
WILSON_OF_HALVES = (
    f"95% over images of both sets, Wilson's with the design effect of {PAIRS} pairs of random halves"
)
"""Interval of a share that depends on all images of both sets."""

MORE = "or more between equal distributions"
"""What intervals of distances cover, which are of second order there."""
MEAN = "95%: standard errors over images, Student's t"
"""Interval of a mean over images."""

Figures = Callable[..., "Tensor | float"]
"""Of sets of features to one figure, or several in a tensor `[k]`."""


def in_halves(draws: int = PAIRS) -> str:
    """What an interval by `bootstrap` is called."""
    return f"95% over images, {draws} pairs of random halves"


def student(degrees: int) -> float:
    """The number of standard errors on either side of a 95% interval, where these are known by so many squares.

    >>> round(student(20), 3), round(student(10**6), 3)
    (2.086, 1.96)
    """
    from scipy.special import stdtrit  # late: slow to import

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def wilson(share: float, images: float, reach: float = REACH) -> tuple[float, float]:
    """Wilson's interval of a share of so many independent images: within 0 and 1, and never of length 0.

    >>> [round(end, 3) for end in wilson(1.0, 4)]
    [0.51, 1.0]

    Raises `GenzooError` for what is no share, and for no images.
    """
    if not -1e-9 <= share <= 1 + 1e-9 or not images > 0:
        raise GenzooError(f"a share of images lies between 0 and 1, got {share} of {images}")
    share, z2 = min(max(share, 0.0), 1.0), reach**2
    middle = (share + z2 / (2 * images)) / (1 + z2 / images)
    half = reach * math.sqrt(share * (1 - share) / images + z2 / (4 * images**2)) / (1 + z2 / images)
    # the ends of 0 and 1 are these but for rounding
    return min(max(0.0, middle - half), share), max(min(1.0, middle + half), share)


def share_interval(
    share: float, stderr: float | None, images: float, reach: float = REACH
) -> tuple[float, float]:
    """Wilson's interval of what is between 0 and 1 and has a standard error of its own, such as an AUROC.

    That of as many images as give this error; of `images` where the error is unknown or 0.
    """
    own = share * (1 - share)
    return wilson(share, own / stderr**2 if stderr and own > 0 else images, reach)


def mean_estimate(
    mean: float, stderr: float | None, images: int, *, higher_is_better: bool | None = False
) -> Estimate:
    """The mean over so many images, its interval by Student's t; without one where there is no standard error."""
    if stderr is None or images < 2:
        return Estimate(mean, 0, images, higher_is_better=higher_is_better)
    return Estimate.from_stderr(
        mean, stderr, images, interval=MEAN, higher_is_better=higher_is_better, reach=student(images - 1)
    )


def share_estimate(
    share: float,
    images: int,
    *,
    samples: int = 0,
    stderr: float | None = None,
    floor: float | None = None,
    higher_is_better: bool | None = True,
    interval: str = WILSON,
) -> Estimate:
    """A share of so many independent `images` with Wilson's interval; see `share_interval` for `stderr`.

    `samples` of the images are generated.
    """
    low, high = share_interval(share, stderr, images)
    return Estimate(share, samples, images, low, high, interval, floor, higher_is_better)


# --- parts -----------------------------------------------------------------------------------------------------


def figures_of_parts(
    metric: Figures,
    sets: Sequence[Tensor],
    *,
    parts: int = 2,
    draws: int = PAIRS,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, float]:
    """The figures of random disjoint parts of all `sets` `[n, d]`, float64 `[draws, parts, k]`; and a factor.

    The factor is what variances must be multiplied by where only some of the rows were used, since there are more
    than `MOST_ROWS`. `generator` is on the CPU. Raises `GenzooError` for few draws.
    """
    if draws < FEWEST_DRAWS:
        raise GenzooError(f"an interval needs {FEWEST_DRAWS} or more draws, got {draws}")
    total = sum(map(len, sets))
    used = min(1.0, MOST_ROWS / total)
    found = []
    for _ in range(draws):
        cut = [_cut(rows, parts, used, generator) for rows in sets]
        each = [metric(*(rows[i] for rows in cut)) for i in range(parts)]
        found.append(torch.stack([torch.as_tensor(one, dtype=torch.float64).reshape(-1) for one in each]))
    return torch.stack(found), used


def _cut(rows: Tensor, parts: int, used: float, generator: torch.Generator | None) -> Sequence[Tensor]:
    """Disjoint random parts of equal size."""
    order = torch.randperm(len(rows), generator=generator).to(rows.device)
    size = max(1, int(len(rows) * used) // parts)
    return [rows[order[i * size : (i + 1) * size]] for i in range(parts)]


def variance_of_halves(found: Tensor) -> Tensor:
    """`odd` above, `[k]`, of the figures of halves `[draws, 2, k]`."""
    return (found[:, 0] - found[:, 1]).square().mean(0) / 4


def variance_of_distance(found: Tensor) -> Tensor:
    """The variance `[k]` of a figure that is of degree 2 where distributions are equal, of halves `[draws, 2, k]`."""
    even = found.mean(1).var(0)
    return (variance_of_halves(found) - 2 * even).clamp(min=0) + even


def variance_by_power(halves: Tensor, quarters: Tensor) -> Tensor:
    """The variance `[k]` where it may fall more slowly than 1 / n: as it fell from quarters to halves of the rows.

    v(n) = v(n/2)^2 / v(n/4), and no less than v(n/2) / 2. `halves` `[draws, 2, k]`, `quarters` `[draws, 4, k]`.
    """
    two, four = halves.var(1).mean(0), quarters.var(1).mean(0)
    falls = torch.where(four > 0, two / four.clamp(min=torch.finfo(four.dtype).tiny), torch.ones_like(two))
    return two * falls.clamp(0.5, 1.0)


def design_effect(found: Tensor, images: int) -> Tensor:
    """The variance of shares of `images` over that of independent ones, 1 or more, `[k]`, of halves `[draws, 2, k]`."""
    return effect_of(variance_of_halves(found), found.mean((0, 1)), images)


def effect_of(variance: Tensor, share: Tensor, images: int) -> Tensor:
    """`variance` `[k]` of shares `[k]` of `images` over that of independent ones; 1 or more."""
    own = share * (1 - share) / images
    effect = variance / own.clamp(min=torch.finfo(own.dtype).tiny)
    return torch.where(own > 0, effect, torch.ones_like(effect)).clamp(min=1.0)


def bootstrap(
    metric: Metric,
    real: Tensor,
    fake: Tensor,
    *,
    draws: int = PAIRS,
    distance: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """The 95% interval of `metric(real, fake)` over images of both sets, by `draws` pairs of random halves.

    It is about the mean of the figure over fresh images in the same numbers, its bias included, which is what a
    comparison of equal numbers of images needs. `distance` is for what is 0 at least and of degree 2 between equal
    distributions: others get intervals that are too wide there, by the factor 2^(1/2). Takes `2 draws + 1` evaluations,
    all but one on half of the rows. `generator` (on the CPU) draws the halves. The metric must not care for the order
    of rows. Raises `GenzooError` for fewer than four rows a side or few draws.
    """
    check_features(real, fake, "an interval")
    if min(len(real), len(fake)) < 4:
        raise GenzooError(f"an interval needs four or more images a side, got {len(real)} and {len(fake)}")
    found, used = figures_of_parts(metric, [real, fake], draws=draws, generator=generator)
    variance = (variance_of_distance if distance else variance_of_halves)(found).item() * used
    value, reach = metric(real, fake), student(draws) * math.sqrt(variance)
    return min(value, max(0.0, value - reach)) if distance else value - reach, value + reach
