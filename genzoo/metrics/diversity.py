"""How many different things samples are, and how far their projections lie from those of the data.

    Vendi score           exp H(l / n), l the eigenvalues of the n x n matrix of cosines    Friedman & Dieng 2023
    of order q            (sum (l / n)^q)^(1 / (1 - q))                                     Pasarkar & Dieng 2024
    sliced Wasserstein    (mean over directions of W_p^p of the projections)^(1 / p)        Bonneel et al. 2015

A Vendi score is an effective number of distinct rows: 1 for copies of one, n for orthogonal ones. It says nothing of
quality: print that of as many real images beside it. Features with a common mean, as after a ReLU, have cosines near 1
and low scores.
"""

import math

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.metrics.estimate import check_dispersion, check_features

SLICED = "the sliced Wasserstein distance"
PROJECTIONS = 500
CHUNK = 64
"""Directions at once: bounds memory."""


def vendi_score(features: Tensor, *, q: float = 1.0) -> float:
    """The effective number of distinct rows among `features` `[n, d]`, from 1 to min(n, d), with the cosine kernel.

    `q` is the order of the entropy: 1 is Shannon's, 0 counts all that there is at all, infinity only the most common.
    Float64; eigenvalues are those of the d x d matrix where n > d, which are the same but for zeros. Raises
    `GenzooError` for features that are no matrix or not finite, rows that are all zero, and a negative `q`.
    """
    check_features(features, features, "the Vendi score")
    if not q >= 0:
        raise GenzooError(f"the order of a Vendi score is 0 or more, got {q}")
    rows = features.detach().double()
    rows = rows / rows.abs().amax(1, keepdim=True)  # no square over- or underflows; 0 / 0 is refused below
    if not bool(rows.isfinite().all()):
        raise GenzooError(
            "the Vendi score compares directions, and a row of zeros has none: take other features"
        )
    rows = rows / rows.square().sum(1, keepdim=True).sqrt()
    n, d = rows.shape
    gram = rows.T @ rows if n > d else rows @ rows.T
    shares = torch.linalg.eigvalsh(gram / n)
    # rounding makes small eigenvalues of zeros, which orders below 1 would count
    shares = shares[shares > max(n, d) * torch.finfo(torch.float64).eps * shares.max()]
    return _effective_number(shares / shares.sum(), q)


def sliced_wasserstein(
    real: Tensor,
    fake: Tensor,
    *,
    p: float = 2.0,
    projections: int = PROJECTIONS,
    generator: torch.Generator | None = None,
) -> float:
    """The sliced Wasserstein distance of order `p` between `real` `[n, d]` and `fake` `[m, d]`, in units of features.

    The mean is over `projections` directions drawn by `generator` (on the CPU), with a relative error of some
    (2 / projections)^(1/2) or less; give equal generators to figures that are compared. Distances of projections are
    exact for any n and m: quantile functions are step functions. Biased upwards, as are all distances of samples: see
    the reference value. Raises `GenzooError` for features of two widths, not finite, fewer than two or all real ones
    equal, and for p < 1 or no projections.
    """
    check_features(real, fake, SLICED)
    check_dispersion(real, SLICED)
    if not 1 <= p < math.inf or projections < 1:
        raise GenzooError(
            "the sliced Wasserstein distance is of order 1 or more over directions, "
            f"got p={p} and {projections} directions"
        )
    x, y = real.detach().double(), fake.detach().double()
    centre = x.mean(0)
    x, y = x - centre, y - centre
    weights, rows_x, rows_y = _common_steps(len(x), len(y))
    weights, rows_x, rows_y = weights.to(x.device), rows_x.to(x.device), rows_y.to(x.device)
    total = 0.0
    for part in directions(projections, x.shape[1], generator).to(x.device).split(CHUNK):
        differences = (x @ part.T).sort(0).values[rows_x] - (y @ part.T).sort(0).values[rows_y]
        total += (weights @ differences.abs().pow(p)).sum().item()
    return (total / projections) ** (1 / p)


def directions(count: int, d: int, generator: torch.Generator | None = None) -> Tensor:
    """Uniform on the unit sphere, float64 `[count, d]` on the CPU."""
    drawn = torch.randn(count, d, generator=generator, dtype=torch.float64)
    return drawn / drawn.square().sum(1, keepdim=True).sqrt()


def _effective_number(shares: Tensor, q: float) -> float:
    """The exponential of the Renyi entropy of order `q` of positive `shares` that sum to 1."""
    if q == 1:
        return (-torch.xlogy(shares, shares).sum()).exp().item()
    if math.isinf(q):
        return 1 / shares.max().item()
    # of a log-sum-exp, since powers of small shares underflow
    return (torch.logsumexp(q * shares.log(), 0) / (1 - q)).exp().item()


def _common_steps(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """The steps on which quantile functions of n and of m points are both constant: widths, and which points.

    Ends are counted in units of 1 / (n m), so that they are equal where they ought to be.
    """
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    return (ends - starts).double() / (n * m), starts // m, starts // n
