"""Nearest neighbours among features, and what they say of samples: precision, recall, density, coverage, and the
fidelity and variety of `genzoo.metrics.typicality`.

All distances are Euclidean, in float64, and as good for near pairs as for far ones: rows are centred on their median
first (an offset would eat the digits, and no outlier moves a median), |a|^2 + |b|^2 - 2 a.b is trusted only where it is
not a small difference of large numbers, and the other pairs are subtracted. A point is left out of its own neighbours
by its index, so that copies of it count. Distances are made in blocks of bounded size and each only once.

A point's ball reaches to its k-th nearest neighbour in its own set. With it

    precision   share of samples in the ball of any real point          (Kynkäänniemi et al. 2019, section 2, k = 3)
    recall      share of real points in the ball of any sample          (the same, k = 3)
    density     balls of real points that a sample lies in, over k      (Naeem et al. 2020, section 3, k = 5)
    coverage    share of real points with a sample in their ball        (the same, k = 5)

Balls of the first two hold their surface, as in that paper; those of the others do not, as in their authors' code, but
for what equals the centre itself. Only features on a lattice and copies of points notice.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.metrics.estimate import check_dispersion, check_features
from genzoo.metrics.typicality import K_VARIETY, fidelity, variety

K = 3
"""Neighbours of precision and recall."""
K_DENSITY = 5
"""Neighbours of density, coverage and fidelity."""
BLOCK_MIB = 64.0
NEAR = 1e-5
"""Squared distances below this part of the squared norms are subtracted: the product leaves them under 10 digits."""
NAME = "a comparison of neighbours (precision, recall, density, coverage, fidelity, variety)"
PAIRS = 256  # few enough for their rows to stay in the processor's cache
SURFACE = 1e-9
"""Squared distances that differ by this part of themselves are equal but for rounding."""


class NeighbourMetrics(NamedTuple):
    """Precision, recall, density, coverage with their standard errors, the numbers of features, fidelity and variety.

    The errors are over the samples (precision, density) or the real points (recall, coverage), for given balls.
    Density of equal distributions is 1 in expectation and may exceed it; coverage of equal distributions is
    `expected_coverage`.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    precision_stderr: float
    recall_stderr: float
    density_stderr: float
    coverage_stderr: float
    n_real: int
    n_fake: int
    fidelity: float
    variety: float


class Nearest(NamedTuple):
    """The k nearest points of each query, nearest first: float64 distances and long indices, both `[n, k]`."""

    distances: Tensor
    indices: Tensor


def neighbour_metrics(
    real: Tensor, fake: Tensor, *, k: int = K, k_density: int = K_DENSITY, block_mib: float = BLOCK_MIB
) -> NeighbourMetrics:
    """Improved precision and recall with `k` neighbours, density, coverage and fidelity with `k_density`; variety.

    `real` `[n, d]` and `fake` `[m, d]` are features. Takes n^2 + m^2 + n m distances, `block_mib` of them at a time.
    Raises `GenzooError` for features that are no matrices of one width, not finite, not more than their neighbours, or
    for real features that are all equal.
    """
    check_features(real, fake, NAME)
    reals, fakes = _points(real, fake)
    check_dispersion(real, NAME)  # every neighbour at distance 0: a figure would tell how ties are counted
    _check_k(max(k, k_density), len(real) - 1, "real features")
    _check_k(k, len(fake) - 1, "generated features")
    most = max(k, k_density, min(K_VARIETY, len(real) - 1))
    radii = _own(reals, most, block_mib).distances.square()
    own = radii[:, k - 1] * (1 + SURFACE), _open(radii[:, k_density - 1])
    others = _own(fakes, k, block_mib).distances[:, -1].square() * (1 + SURFACE)
    tallies = _Tallies(len(real), len(fake), k_density)
    for rows, block in _blocks(reals, fakes, block_mib):
        tallies.add(rows, block, own[0][rows, None], own[1][rows, None], others)
    return tallies.metrics(radii)


def expected_coverage(n_real: int, n_fake: int, k: int = K_DENSITY) -> float:
    """E[coverage] of samples from the distribution of the data itself, whatever that is (Naeem et al. 2020, section 3).

        1 - prod_{j=1..k} (N - j) / (N + M - j)    for N real points and M samples.

    >>> round(expected_coverage(10_000, 10_000), 4)
    0.9688

    Raises `GenzooError` where there are not more than `k` real points.
    """
    _check_k(k, n_real - 1, "real features")
    return 1 - math.prod((n_real - j) / (n_real + n_fake - j) for j in range(1, k + 1))


def nearest(queries: Tensor, points: Tensor, k: int = 1, *, block_mib: float = BLOCK_MIB) -> Nearest:
    """The `k` nearest of `points` `[m, d]` to each of `queries` `[n, d]`.

    Raises `GenzooError` for features that are no matrices of one width or not finite, and for fewer than k points.
    """
    check_features(points, queries, "the nearest neighbours")
    _check_k(k, len(points), "features")
    x, y = _points(queries, points)
    return _smallest(_blocks(x, y, block_mib), k)


def nearest_others(
    points: Tensor, k: int = 1, *, only: Tensor | None = None, block_mib: float = BLOCK_MIB
) -> Nearest:
    """The `k` nearest to each of `points` `[n, d]` among the other ones; a copy of a point is another one.

    With long indices `only` `[m]` it is answered for those points. Raises `GenzooError` for features that are no
    matrix or not finite, and for not more than k points.
    """
    check_features(points, points, "the nearest neighbours")
    _check_k(k, len(points) - 1, "features")
    return _own(_points(points)[0], k, block_mib, only)


class _Points(NamedTuple):
    """Centred rows `[n, d]`, their squared norms `[n]`, and numbers `[n]` that are the same for equal rows."""

    rows: Tensor
    norms: Tensor
    names: Tensor


def _points(*sets: Tensor) -> list[_Points]:
    sizes = [len(rows) for rows in sets]
    rows = torch.cat([rows.detach().cpu().double() for rows in sets])
    rows -= rows.median(0).values
    names = torch.unique(rows, dim=0, return_inverse=True)[1]
    norms = rows.square().sum(1)
    return [_Points(*parts) for parts in zip(*(x.split(sizes) for x in (rows, norms, names)), strict=True)]


def _blocks(x: _Points, y: _Points, block_mib: float) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances of successive rows of `x` to all of `y`, and which rows they are."""
    height = max(1, int(block_mib * 2**20 / (8 * len(y.rows))))
    for start in range(0, len(x.rows), height):
        rows = slice(start, start + height)
        part = _Points(*(values[rows] for values in x))
        block = torch.addmm(y.norms, part.rows, y.rows.T, alpha=-2).add_(part.norms[:, None])
        _subtract_near(block, part, y)
        yield rows, block


def _subtract_near(block: Tensor, x: _Points, y: _Points) -> None:
    """Puts exact squared distances where the product has lost digits; near pairs have norms of about one size."""
    limits = 2 * NEAR * x.norms
    rows = (block.amin(1) < limits).nonzero().flatten()
    for some in rows.split(max(1, len(block) // 8)):
        near = block[some] < limits[some, None]
        equal = near & (x.names[some, None] == y.names)
        block[some] = block[some].masked_fill_(equal, 0.0)
        near &= ~equal
        columns = near.any(0).nonzero().flatten()
        if 4 * int(near.sum()) > len(some) * len(columns):
            _subtract_all(block, x.rows, y.rows, some, columns)
        else:
            i, j = near.nonzero(as_tuple=True)
            _subtract_pairs(block, x.rows, y.rows, some[i], j)


def _subtract_all(block: Tensor, x: Tensor, y: Tensor, rows: Tensor, columns: Tensor) -> None:
    exact = torch.cdist(x[rows], y[columns], compute_mode="donot_use_mm_for_euclid_dist").square_()
    block[rows[:, None], columns] = exact


def _subtract_pairs(block: Tensor, x: Tensor, y: Tensor, rows: Tensor, columns: Tensor) -> None:
    for i, j in zip(rows.split(PAIRS), columns.split(PAIRS), strict=True):
        block[i, j] = (x[i] - y[j]).square_().sum(1)


def _own(points: _Points, k: int, block_mib: float, only: Tensor | None = None) -> Nearest:
    """The neighbours of (some of) a set's points within it, none of which is its own."""
    only = torch.arange(len(points.rows)) if only is None else only
    return _smallest(_own_blocks(points, only, block_mib), k)


def _own_blocks(points: _Points, only: Tensor, block_mib: float) -> Iterator[tuple[slice, Tensor]]:
    for rows, block in _blocks(_Points(*(values[only] for values in points)), points, block_mib):
        yield rows, block.scatter_(1, only[rows, None], torch.inf)


def _smallest(blocks: Iterator[tuple[slice, Tensor]], k: int) -> Nearest:
    found = [block.topk(k, dim=1, largest=False) for _, block in blocks]
    return Nearest(torch.cat([f.values for f in found]).sqrt(), torch.cat([f.indices for f in found]))


def _open(squared: Tensor) -> Tensor:
    """What squared distances must be below to lie inside of balls without their surface, or at their very centre."""
    return (squared * (1 - SURFACE)).clamp(min=torch.finfo(squared.dtype).tiny)


class _Tallies:
    """What blocks of squared distances from real points to samples add up to; `k` are the neighbours of density."""

    def __init__(self, n_real: int, n_fake: int, k: int) -> None:
        self.in_ball = torch.zeros(n_fake, dtype=torch.bool)
        self.balls = torch.zeros(n_fake, dtype=torch.long)
        self.reached = torch.zeros(n_real, dtype=torch.bool)
        self.covered = torch.zeros(n_real, dtype=torch.bool)
        self.to_samples = torch.zeros(n_real, dtype=torch.float64)
        self.to_reals = torch.full((k, n_fake), torch.inf, dtype=torch.float64)

    def add(self, rows: slice, block: Tensor, closed: Tensor, opened: Tensor, others: Tensor) -> None:
        """Of the real points `rows`, with limits `[rows, 1]`, and all samples, with limits `[m]`."""
        self.in_ball |= (block <= closed).any(0)
        self.reached[rows] = (block <= others).any(1)
        inside = block < opened
        self.covered[rows] = inside.any(1)
        self.balls += inside.sum(0)
        self.to_samples[rows] = block.amin(1)
        k = len(self.to_reals)
        nearest_here = block.topk(min(k, len(block)), dim=0, largest=False).values
        self.to_reals = torch.cat([self.to_reals, nearest_here]).topk(k, dim=0, largest=False).values

    def metrics(self, radii: Tensor) -> NeighbourMetrics:
        """The figures; `radii` `[n, most]` are the squared distances of real points to their neighbours."""
        k, n, m = len(self.to_reals), len(self.covered), len(self.balls)
        parts = [self.in_ball, self.reached, self.balls.double() / k, self.covered]
        means = [part.double().mean().item() for part in parts]
        errors = [(part.double().var(correction=0) / len(part)).sqrt().item() for part in parts]
        ks = range(1, min(K_VARIETY, n - 1) + 1)
        expected = torch.tensor([expected_coverage(n, m, k) for k in ks], dtype=torch.float64)
        return NeighbourMetrics(
            *means, *errors, n_real=n, n_fake=m,
            fidelity=fidelity(radii[:, k - 1] * (1 + SURFACE), self.to_reals.amax(0)),
            variety=variety(self.to_samples, _open(radii[:, : len(ks)]), expected),
        )  # fmt: skip


def _check_k(k: int, most: int, what: str) -> None:
    if not 1 <= k <= most:
        raise GenzooError(
            f"{k} neighbours are to be found among {max(0, most)} {what}: give more of them, or a k of 1 or more"
        )
