"""Whitening of features: each direction counts by how far it lies outside of what real images do.

Features of one network differ in variance by orders of magnitude, and the Fréchet distance counts squares: without
whitening the few directions in which real images vary most, such as their brightness, outweigh all others, and faults
that real images never have lie in those that hardly count.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genzoo.metrics.estimate import check_features


@dataclass(frozen=True)
class Whitening:
    """Features `[n, d]` to float32 `[n, k]`: (f - `mean`) @ `matrix`."""

    mean: Tensor
    matrix: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """In float64 inside."""
        return ((features.double() - self.mean) @ self.matrix).float()

    @property
    def width(self) -> int:
        """k."""
        return self.matrix.shape[1]

    @staticmethod
    def of(features: Tensor, components: int, shrinkage: float) -> "Whitening":
        """From real images' features `[n, d]`: at most so many principal components, each over (l + s m)^(1/2).

        l is the component's variance and m the mean of all d variances: with a `shrinkage` s of 0 all components have
        variance 1, with a large one they keep their ratios; directions of hardly any variance are noise of the
        estimate and stay small. Directions without any variance are left out. Raises `GenzooError` for fewer than two
        rows, or values that are not finite.
        """
        check_features(features, features, "whitening")
        rows = features.double()
        mean = rows.mean(0)
        variances, directions = torch.linalg.eigh(torch.cov((rows - mean).T).reshape(2 * (rows.shape[1],)))
        variances, directions = variances.flip(0).clamp(min=0), directions.flip(1)
        kept = min(components, int((variances > variances.max() * 1e-12).sum()))
        scale = (variances[:kept] + shrinkage * variances.mean()).rsqrt()
        return Whitening(mean, directions[:, :kept] * scale)
