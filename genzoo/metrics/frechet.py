"""The Fréchet distance of two sets of feature vectors, without ever forming a covariance.

Of two Gaussians (Dowson & Landau 1982; as a figure for images Heusel et al. 2017)

    d = |mu_a - mu_b|^2 + Tr(S_a) + Tr(S_b) - 2 Tr((S_a S_b)^(1/2))

With S = R^T R, where Q R are the centred rows over sqrt(n - 1), the last trace is the sum of the singular values of
R_a R_b^T: real whatever the ranks, also with fewer rows than features, and without squaring a condition number.

Estimated from n rows a side the distance is biased upwards, by 2 d / n + d (d + 1) / (2 n) to leading order for two
sets of one d-dimensional standard normal distribution (`frechet_reference`): compare sets of equal size, print the
distance between real sets, or extrapolate the bias away.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.metrics.estimate import check_dispersion, check_features

NAME = "the Fréchet distance"
MOST_PARTS = 10
ROWS_PER_FEATURE = 4
"""Of the smallest part: with fewer rows the bias is no longer a line in 1 / n."""


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The squared Fréchet distance of the Gaussians with the moments of `a` `[n, d]` and `b` `[m, d]`, rows samples.

    In units of the features squared, in float64, covariances over n - 1. Raises `GenzooError` for anything but two
    matrices of equally wide, finite rows, two or more each, and where all rows of `a`, the real ones, are equal.
    """
    check_features(a, b, NAME)
    check_dispersion(a, NAME)
    return _distance(a.detach().double(), b.detach().double())


def frechet_reference(d: int, n: int, m: int | None = None) -> float:
    """The mean distance between `n` and `m` (as many, by default) rows of one `d`-dimensional standard normal
    distribution.

    To first order in 1 / n and 1 / m: (d + d (d + 1) / 4) (1 / n + 1 / m). Features of covariance S have the means'
    part d replaced by Tr(S); whitened features have this reference value. Raises `GenzooError` where a number is not
    positive.

    >>> round(frechet_reference(512, 10_000), 2)
    13.24
    """
    m = n if m is None else m
    if min(d, n, m) < 1:
        raise GenzooError(f"a reference value needs features and rows, got {d} features, {n} and {m} rows")
    return (d + d * (d + 1) / 4) * (1 / n + 1 / m)


def frechet_stderr(a: Tensor, b: Tensor) -> float:
    """The standard error of `frechet_distance(a, b)` over the rows of both, by the delta method.

    A row x of a moves the distance by 2 (mu_a - mu_b) (x - mu_a) + (x - mu_a)^T (I - T) (x - mu_a) over n, T the
    linear map that takes the one Gaussian into the other (the gradient of the Bures distance: Bhatia, Jain & Lim
    2019); with z = sqrt(n - 1) times x's row of Q, and U D V^T = R_a R_b^T, x^T T x = z^T U D U^T z. Right for
    distributions that differ; for equal distributions, where the distance is of second order, it is too large. Raises
    as the distance does.
    """
    check_features(a, b, NAME)
    a, b = a.detach().double(), b.detach().double()
    variances = [_influence(x, y).var() / len(x) for x, y in ((a, b), (b, a))]
    return torch.stack(variances).sum().sqrt().item()


class Extrapolated(NamedTuple):
    """The intercept of the line through distances over 1 / size, and what it was drawn through.

    `slope` is that over 1 / size: the bias at n rows is slope / n. `stderr` covers the sampling of the images and the
    scatter about the line. `sizes` are the rows of the parts of the smaller set. The value may be negative, by a few
    standard errors, where distributions are equal.
    """

    value: float
    stderr: float
    slope: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


def frechet_extrapolated(a: Tensor, b: Tensor, *, generator: torch.Generator | None = None) -> Extrapolated:
    """FD-infinity: the distance at infinitely many rows of both `a` `[n, d]` and `b` `[m, d]` (Chong & Forsyth 2020).

    They regress distances on 1 / N and take the intercept. Here *both* sets are cut into k random parts (drawn by
    `generator`, no row twice), for k = 1 to 10, and the distance at 1 / k of the rows is the mean over the pairs of
    parts, so that all rows count at each size. Both biases are proportional to k, and the line over k has neither at
    k = 0. Parts keep four rows or more for each feature, with fewer it is no line; k ends earlier for small sets.
    Raises `GenzooError` where even halves are smaller, and as `frechet_distance`.
    """
    check_features(a, b, NAME)
    check_dispersion(a, NAME)
    a, b = a.detach().double(), b.detach().double()
    rows, width = min(len(a), len(b)), a.shape[1]
    most = min(MOST_PARTS, rows // (ROWS_PER_FEATURE * width))
    if most < 2:
        raise GenzooError(
            f"the extrapolated Fréchet distance of {width} features needs {2 * ROWS_PER_FEATURE * width} images or "
            f"more a side, got {rows}: draw more, or use narrower features"
        )
    parts = torch.arange(1, most + 1, dtype=torch.float64)
    found = torch.tensor(
        [_mean_of_parts(a, b, k, generator) for k in range(1, most + 1)], dtype=torch.float64
    )
    value, slope, scatter = _line(parts, found)
    stderr = (scatter**2 + frechet_stderr(a, b) ** 2) ** 0.5
    return Extrapolated(
        value, stderr, slope * rows, tuple(rows // k for k in range(1, most + 1)), tuple(found.tolist())
    )


def _mean_of_parts(a: Tensor, b: Tensor, k: int, generator: torch.Generator | None) -> float:
    cut = [
        rows[torch.randperm(len(rows), generator=generator).to(rows.device)].tensor_split(k)
        for rows in (a, b)
    ]
    return sum(_distance(x, y) for x, y in zip(*cut, strict=True)) / k


def _line(x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Intercept and slope of least squares, and the standard error of the intercept (0 for two points)."""
    design = torch.stack([torch.ones_like(x), x], 1)
    inverse = torch.linalg.inv(design.T @ design)
    found = inverse @ (design.T @ y)
    variance = (y - design @ found).square().sum() / max(1, len(x) - 2)
    return found[0].item(), found[1].item(), (variance * inverse[0, 0]).sqrt().item()


def _distance(a: Tensor, b: Tensor) -> float:
    mean_a, factor_a = _moments(a)
    mean_b, factor_b = _moments(b)
    shared = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    traces = factor_a.square().sum() + factor_b.square().sum()
    # of equal sets the difference is 0 but for rounding, which may be negative
    return max(0.0, ((mean_a - mean_b).square().sum() + traces - 2 * shared).item())


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The mean `[d]` of `rows` `[n, d]` and R `[min(n, d), d]` with R^T R their covariance, float64."""
    mean = rows.mean(0)
    _, factor = torch.linalg.qr((rows - mean) / (len(rows) - 1) ** 0.5, mode="r")
    return mean, factor


def _influence(x: Tensor, y: Tensor) -> Tensor:
    """n times what each row `[n, d]` of x moves the distance by, but for a constant, `[n]`."""
    mean, root = x.mean(0), (len(x) - 1) ** 0.5
    orthogonal, factor = torch.linalg.qr((x - mean) / root)
    mean_y, factor_y = _moments(y)
    u, d, _ = torch.linalg.svd(factor @ factor_y.T, full_matrices=False)
    transported = (root * orthogonal @ u).square() @ d
    centred = x - mean
    return 2 * centred @ (mean - mean_y) + centred.square().sum(1) - transported
