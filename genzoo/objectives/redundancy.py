"""Two views without negatives: agreement per image, and statistics of the batch that forbid collapse.

    Barlow Twins   sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2           Zbontar et al. 2021, equation 1
                   C the correlation of dimension i of one view with dimension j of the other, equation 2
    VICReg         25 |a - b|^2 / d + 25 (v(a) + v(b)) / 2 + c(a) + c(b)     Bardes et al. 2022, equation 6
                   v: how far standard deviations fall short of 1; c: squared covariances of different dimensions

Neither needs a large batch of negatives; both need embeddings that are wide and not normalised. They are statistics of
a batch: what cannot be told apart by image is the same for each. Everything in float32 or better, under autocast too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from genzoo.core.errors import GenzooError
from genzoo.objectives.contrastive import PairObjective, require_positive


@dataclass(frozen=True)
class BarlowTwins(PairObjective):
    """The two views' cross-correlation matrix shall be the identity: a scalar, given to each image.

    It ignores scale and offset of every dimension (up to `eps`). A dimension that is constant, as all are for a single
    image, has correlation 0 and costs 1.
    """

    redundancy: float = 0.005
    """lambda, of the d (d - 1) terms off the diagonal."""
    eps: float = 1e-5
    """Added to variances; that of the published code's batch normalisation."""

    def __post_init__(self) -> None:
        require_positive(self, "eps")
        if not self.redundancy >= 0:
            raise GenzooError(f"redundancy of BarlowTwins must be at least 0, got {self.redundancy}")

    def of_views(self, a: Tensor, b: Tensor) -> Tensor:
        """A sum over dimensions; it grows with d^2 where nothing is decorrelated yet."""
        correlation = self._standardised(a).T @ self._standardised(b) / len(a)
        diagonal = correlation.diagonal()
        redundant = correlation.square().sum() - diagonal.square().sum()
        loss = (1 - diagonal).square().sum() + self.redundancy * redundant
        return loss.expand(len(a))

    def _standardised(self, z: Tensor) -> Tensor:
        z = z - z.mean(0)
        return z * (z.square().mean(0) + self.eps).rsqrt()


@dataclass(frozen=True)
class VICReg(PairObjective):
    """Variance, invariance, covariance: `[n]` of which the first term is each image's own, the rest the batch's.

    The normalisation is that of the published code, which the weights 25, 25 and 1 go with: the invariance is a mean
    over dimensions (equation 5 has the sum) and the variance terms of the views are averaged (equation 6 adds them).
    A single image has no variance: it is penalised in full.
    """

    invariance: float = 25.0
    """lambda, of the mean squared difference."""
    variance: float = 25.0
    """mu, of max(0, 1 - std), averaged over dimensions and views."""
    covariance: float = 1.0
    """nu, of the sum of squared covariances of different dimensions, divided by d and summed over views."""
    eps: float = 1e-4
    """Added to variances under the root."""

    def __post_init__(self) -> None:
        require_positive(self, "eps")
        if not min(self.invariance, self.variance, self.covariance) >= 0:
            raise GenzooError("the weights of VICReg must be at least 0")

    @override
    def of_views(self, a: Tensor, b: Tensor) -> Tensor:
        own = (a - b).square().mean(1)
        (spread_a, mixed_a), (spread_b, mixed_b) = self._statistics(a), self._statistics(b)
        shared = 0.5 * self.variance * (spread_a + spread_b) + self.covariance * (mixed_a + mixed_b)
        return self.invariance * own + shared

    def _statistics(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Equations 1 and 4: what is missing in standard deviation, and what dimensions share; scalars."""
        z = z - z.mean(0)
        covariance = z.T @ z / max(len(z) - 1, 1)
        variances = covariance.diagonal()
        missing = F.relu(1 - torch.sqrt(variances + self.eps)).mean()
        return missing, (covariance.square().sum() - variances.square().sum()) / z.shape[1]
