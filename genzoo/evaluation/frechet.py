"""The Fréchet distance of two sets of feature vectors, without ever forming a covariance.

Of two Gaussians (Dowson & Landau 1982; as a figure for images Heusel et al. 2017)

    d = |mu_a - mu_b|^2 + Tr(S_a) + Tr(S_b) - 2 Tr((S_a S_b)^(1/2))

With S = R^T R, where Q R are the centred rows over sqrt(n - 1), the last trace is the sum of the singular values of
R_a R_b^T: real whatever the ranks, also with fewer rows than features, and without squaring a condition number.
Estimated from n rows a side the distance is biased upwards, by 2 d / n + d (d + 1) / (2 n) to leading order for two
sets of one d-dimensional standard normal law: compare sets of equal size, and print the distance between real sets.
"""

import torch
from torch import Tensor

from genzoo.contract import GenzooError


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The squared Fréchet distance of the Gaussians with the moments of `a` `[n, d]` and `b` `[m, d]`, rows samples.

    In units of the features squared, in float64, covariances over n - 1. Raises `GenzooError` for anything but two
    matrices of equally wide, finite rows, two or more each.
    """
    for rows in (a, b):
        if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] != a.shape[-1]:
            raise GenzooError(
                "a Fréchet distance is between two sets of two or more vectors of one width, "
                f"got the shapes {list(a.shape)} and {list(b.shape)}"
            )
        if not bool(rows.isfinite().all()):
            raise GenzooError("features hold NaN or infinite values: the Fréchet distance has no value")
    mean_a, factor_a = _moments(a)
    mean_b, factor_b = _moments(b)
    shared = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    traces = factor_a.square().sum() + factor_b.square().sum()
    # of equal sets the difference is 0 but for rounding, which may be negative
    return max(0.0, ((mean_a - mean_b).square().sum() + traces - 2 * shared).item())


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The mean `[d]` of `rows` `[n, d]` and R `[min(n, d), d]` with R^T R their covariance, float64."""
    rows = rows.detach().double()
    mean = rows.mean(0)
    _, factor = torch.linalg.qr((rows - mean) / (len(rows) - 1) ** 0.5, mode="r")
    return mean, factor
