"""Maximum mean discrepancies: how far the mean kernel between two sets is from those within them.

    MMD^2(P, Q) = E k(x, x') + E k(y, y') - 2 E k(x, y)            Gretton et al. 2012, lemma 6

    KID    k(x, y) = (x.y / d + 1)^3, unbiased, over all rows      Binkowski et al. 2018
    CMMD   k(x, y) = exp(-|x - y|^2 / (2 s^2)), biased             Jayasumana et al. 2024

The unbiased estimate leaves the pairs of a row with itself out; its mean is 0 for equal distributions, and it may be
negative. The biased one has them in; it is 0 between a set and itself and never negative, but grows as the sets shrink.

KID is usually the mean over random subsets of 1,000 rows, with the deviation over subsets beside it. That mean is a
noisy version of what all pairs of rows give at once, and that deviation is no error of it. Here all pairs are taken,
and the standard error is that of the estimate itself. With the Hoeffding decomposition of the kernel means, whose parts
are uncorrelated (Serfling 1980, section 5.2; Sutherland et al. 2017 for equal sizes)

    Var = 4 v_x / n + 4 v_y / m + 2 s_xx / (n (n - 1)) + 2 s_yy / (m (m - 1)) + 4 s_xy / (n m)

v_x is the variance over x of the witness E k(x, x') - E k(x, y), v_y likewise, and s are variances of what kernels
have beyond the means of their rows and columns. The last terms are all that is left for equal distributions. Each is
estimated free of bias to leading order from the means of rows and the mean square.

Kernels are in float64, since the figure is a small difference of large means, and made in square tiles of bounded size,
those within a set for one half of the pairs only.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.metrics.estimate import check_dispersion, check_features

NAME = "a kernel distance"
TILE = 1024
"""Rows of a tile, 8 MiB in float64: a few of them stay in the processor's cache."""
MOST_FOR_MEDIAN = 4000
FEWEST_FOR_ERROR = 4


class Kernel(Protocol):
    """A symmetric positive definite function of two rows."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """k of each row of `x` `[n, d]` and each of `y` `[m, d]`, both float64: `[n, m]`."""
        ...


@dataclass(frozen=True)
class Cubic:
    """(x.y / d + 1)^3: KID's kernel, which sees means, covariances and third moments."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The kernel of all pairs of rows."""
        one = torch.ones((), dtype=x.dtype, device=x.device)
        product = torch.addmm(one, x, y.T, alpha=1 / x.shape[1])
        return product.square().mul_(product)


@dataclass(frozen=True)
class GaussianKernel:
    """exp(-|x - y|^2 / (2 s^2)), s the `bandwidth` in units of the features: sees all differences of distributions.

    Raises `GenzooError` for a bandwidth that is not positive and finite.
    """

    bandwidth: float

    def __post_init__(self) -> None:
        if not 0 < self.bandwidth < math.inf:
            raise GenzooError(f"the bandwidth of a Gaussian kernel must be above 0, got {self.bandwidth}")

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The kernel of all pairs of rows."""
        distances = squared_distances(x, y)
        return distances.mul_(-0.5 / self.bandwidth**2).exp_()


class Discrepancy(NamedTuple):
    """A squared maximum mean discrepancy: unbiased, its standard error, and the biased estimate."""

    value: float
    stderr: float
    biased: float


def mmd(real: Tensor, fake: Tensor, kernel: Kernel, *, tile: int = TILE) -> Discrepancy:
    """MMD^2 of `real` `[n, d]` and `fake` `[m, d]` with any kernel, over all pairs of rows, in units of the kernel.

    The result depends on `tile` in rounding alone. The standard error holds for equal distributions, where it errs
    upwards by up to a quarter, and for unequal ones; from fewer than a dozen rows it is a rough guess. Raises
    `GenzooError` unless both are matrices of one width, finite, with two rows or more, where all real rows are equal,
    and where the kernel overflows.
    """
    check_features(real, fake, NAME)
    check_dispersion(real, NAME)
    x, y = real.detach().double(), fake.detach().double()
    own_x, own_y, cross = _within(kernel, x, tile), _within(kernel, y, tile), _between(kernel, x, y, tile)
    value = own_x.mean() + own_y.mean() - 2 * cross.mean()
    biased = own_x.mean_with_itself() + own_y.mean_with_itself() - 2 * cross.mean()
    if not math.isfinite(value):
        raise GenzooError("a kernel distance overflows on features this large: scale them to unit variance")
    # of equal sets the biased one is 0 but for rounding, which may be negative
    return Discrepancy(value, _stderr(own_x, own_y, cross), max(0.0, biased))


def kid(real: Tensor, fake: Tensor, *, tile: int = TILE) -> Discrepancy:
    """The kernel inception distance (Binkowski et al. 2018) of any features, over all pairs of rows: see `mmd`."""
    return mmd(real, fake, Cubic(), tile=tile)


def kid_subsets(
    real: Tensor,
    fake: Tensor,
    *,
    subsets: int = 100,
    size: int = 1000,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """KID as others print it: its mean and deviation over `subsets` pairs of random subsets of `size` rows.

    Here for comparison with published figures; the deviation is not an error of the mean. Raises `GenzooError` where
    there are fewer rows than that, and as `kid`.
    """
    check_features(real, fake, "KID of subsets")
    if not 2 <= size <= min(len(real), len(fake)) or subsets < 1:
        raise GenzooError(
            f"KID of {subsets} subsets of {size} rows cannot be had from {len(real)} real and {len(fake)} generated "
            "images: take a size between 2 and these"
        )
    found = []
    for _ in range(subsets):
        parts = [
            rows[torch.randperm(len(rows), generator=generator)[:size].to(rows.device)]
            for rows in (real, fake)
        ]
        found.append(kid(*parts).value)
    values = torch.tensor(found, dtype=torch.float64)
    return values.mean().item(), values.std(correction=0).item()


def median_bandwidth(real: Tensor) -> float:
    """The median distance between two rows of `real` `[n, d]` (Gretton et al. 2012).

    Of the real set alone, so that all models are evaluated with one kernel; from 4,000 rows at equal steps where there
    are more. Raises `GenzooError` for features of which more than half of the pairs are equal.
    """
    check_features(real, real, "the median distance")
    rows = real.detach().double()
    if len(rows) > MOST_FOR_MEDIAN:
        steps = torch.linspace(0, len(rows) - 1, MOST_FOR_MEDIAN, dtype=torch.float64, device=rows.device)
        rows = rows[steps.round().long()]
    rows = rows - rows.mean(0)
    pairs = torch.nn.functional.pdist(rows)
    median = pairs.median().item()
    if not median > 0:
        raise GenzooError(
            "most real features are equal, so that their median distance, the bandwidth of the kernel, is 0: "
            "take other features"
        )
    return median


def gaussian_mmd(
    real: Tensor, fake: Tensor, *, bandwidth: float | None = None, tile: int = TILE
) -> Discrepancy:
    """MMD^2 with a Gaussian kernel, between 0 and 2, by default of the bandwidth `median_bandwidth(real)`.

    CMMD as published is `1000 * gaussian_mmd(..., bandwidth=10).biased` of CLIP's features of unit length. Raises
    `GenzooError` as `mmd` and `median_bandwidth`.
    """
    check_features(real, fake, NAME)
    kernel = GaussianKernel(median_bandwidth(real) if bandwidth is None else bandwidth)
    return mmd(real, fake, kernel, tile=tile)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances of all pairs of rows, `[n, m]`, of `x` `[n, d]` and `y` `[m, d]`.

    By |x|^2 + |y|^2 - 2 x.y of rows less the mean of `x`: an offset costs no digits, and the absolute error is of the
    size of rounding of the largest squared norm.
    """
    centre = x.mean(0)
    x, y = x - centre, y - centre
    found = torch.addmm(y.square().sum(1), x, y.T, alpha=-2)
    return found.add_(x.square().sum(1)[:, None]).clamp_(min=0)


class _Means(NamedTuple):
    """Kernel means of the rows and columns of a matrix of pairs, the mean square, and for pairs within a set the
    mean of those left out (a row with itself)."""

    rows: Tensor
    columns: Tensor
    square: float
    diagonal: float

    def mean(self) -> float:
        return self.rows.mean().item()

    def mean_with_itself(self) -> float:
        n = len(self.rows)
        return (self.mean() * (n - 1) + self.diagonal) / n


def _within(kernel: Kernel, x: Tensor, tile: int) -> _Means:
    n = len(x)
    rows, square, diagonal = torch.zeros_like(x[:, 0]), 0.0, 0.0
    for i in range(0, n, tile):
        for j in range(i, n, tile):
            block = kernel(x[i : i + tile], x[j : j + tile])
            if i == j:
                diagonal += block.diagonal().sum().item()
                block.fill_diagonal_(0)
            else:  # its mirror image lies below the diagonal
                rows[j : j + tile] += block.sum(0)
            rows[i : i + tile] += block.sum(1)
            square += (1 if i == j else 2) * _sum_of_squares(block)
    means = rows / (n - 1)
    return _Means(means, means, square / (n * (n - 1)), diagonal / n)


def _between(kernel: Kernel, x: Tensor, y: Tensor, tile: int) -> _Means:
    rows, columns, square = torch.zeros_like(x[:, 0]), torch.zeros_like(y[:, 0]), 0.0
    for i in range(0, len(x), tile):
        for j in range(0, len(y), tile):
            block = kernel(x[i : i + tile], y[j : j + tile])
            rows[i : i + tile] += block.sum(1)
            columns[j : j + tile] += block.sum(0)
            square += _sum_of_squares(block)
    return _Means(rows / len(y), columns / len(x), square / (len(x) * len(y)), 0.0)


def _sum_of_squares(block: Tensor) -> float:
    flat = block.flatten()
    return torch.dot(flat, flat).item()


def _stderr(own_x: _Means, own_y: _Means, cross: _Means) -> float:
    n, m = len(own_x.rows), len(own_y.rows)
    s_xx, s_yy = _beyond_rows_within(own_x), _beyond_rows_within(own_y)
    s_xy = _beyond_rows_between(cross)
    # the means of rows are noisy themselves, which shows as variance of the witness
    v_x = (own_x.rows - cross.rows).var().item() - s_xx / (n - 1) - s_xy / m
    v_y = (own_y.rows - cross.columns).var().item() - s_yy / (m - 1) - s_xy / n
    first = max(0.0, v_x / n + v_y / m)
    second = 2 * s_xx / (n * (n - 1)) + 2 * s_yy / (m * (m - 1)) + 4 * s_xy / (n * m)
    return math.sqrt(4 * first + second)


def _beyond_rows_within(own: _Means) -> float:
    """The variance of k(x, x') beyond the means of its row and column, of pairs within a set."""
    n = max(len(own.rows), FEWEST_FOR_ERROR)
    total = own.square - own.mean() ** 2
    return max(0.0, total - 2 * own.rows.var().item()) / (1 - 2 / (n - 1))


def _beyond_rows_between(cross: _Means) -> float:
    """The same of pairs between two sets."""
    n, m = (max(len(means), FEWEST_FOR_ERROR) for means in (cross.rows, cross.columns))
    total = cross.square - cross.mean() ** 2
    return max(0.0, total - cross.rows.var().item() - cross.columns.var().item()) / (1 - 1 / n - 1 / m)
