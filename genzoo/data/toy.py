"""Analytic densities: data whose true log-probability is known, to check models against.

No model's mean test log-likelihood can exceed the true one but by chance. Each density takes its size as an
argument, so that the same formula can be enumerated where it is tiny.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from typing_extensions import override

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec

_CHUNK = 4096  # images handled at a time, to bound memory


class Density(ABC):
    """A distribution that can be sampled and whose log-probability is exact."""

    @property
    @abstractmethod
    def spec(self) -> DataSpec:
        """What a model must know of the samples."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws `[n, *spec.shape]`: uint8 levels, float32 for real-valued data."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, float64 `[n]`, of x `[n, *spec.shape]`; `GenzooError` where x does not fit."""


@final
@dataclass(frozen=True)
class Gaussian(Density):
    """One Gaussian N(mean, covariance) of any dimension d."""

    mean: tuple[float, ...] = (1.0, -0.5)
    covariance: tuple[tuple[float, ...], ...] = ((1.0, 0.6), (0.6, 0.8))

    @property
    @override
    def spec(self) -> DataSpec:
        return DataSpec((len(self.mean),), levels=None)

    @cached_property
    def _factor(self) -> Tensor:
        """Lower Cholesky factor of the covariance, float64 `[d, d]`."""
        return torch.linalg.cholesky(torch.tensor(self.covariance, dtype=torch.float64))

    @override
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        eps = torch.randn(n, len(self.mean), dtype=torch.float64, generator=generator)
        return (torch.tensor(self.mean, dtype=torch.float64) + eps @ self._factor.T).float()

    def log_prob(self, x: Tensor) -> Tensor:
        """log density in nats, `[n, d]` -> float64 `[n]`."""
        centred = _checked(x, self.spec).double() - torch.tensor(self.mean, dtype=torch.float64)
        white = torch.linalg.solve_triangular(self._factor, centred.T, upper=False)  # [d, n]
        log_det = self._factor.diagonal().log().sum()
        return -0.5 * (white**2).sum(0) - log_det - 0.5 * len(self.mean) * math.log(2 * math.pi)


@final
@dataclass(frozen=True)
class GaussianMixture(Density):
    """Equally likely round Gaussians in the plane, their means evenly spaced on a circle."""

    components: int = 8
    radius: float = 2.0
    scale: float = 0.25

    @property
    @override
    def spec(self) -> DataSpec:
        return DataSpec((2,), levels=None)

    @cached_property
    def means(self) -> Tensor:
        """Float64 `[components, 2]`."""
        angle = torch.arange(self.components, dtype=torch.float64) * (2 * math.pi / self.components)
        return self.radius * torch.stack([angle.cos(), angle.sin()], dim=1)

    @override
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return _sample_round(self.means, self.scale, n, generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """log density in nats, `[n, 2]` -> float64 `[n]`."""
        return _log_prob_round(_checked(x, self.spec), self.means, self.scale)


@final
@dataclass(frozen=True)
class GaussianGrid(Density):
    """Equally likely round Gaussians in the plane, their means on a square grid around 0."""

    side: int = 5
    spacing: float = 1.0
    scale: float = 0.1

    @property
    @override
    def spec(self) -> DataSpec:
        return DataSpec((2,), levels=None)

    @cached_property
    def means(self) -> Tensor:
        """Float64 `[side * side, 2]`."""
        axis = self.spacing * (torch.arange(self.side, dtype=torch.float64) - (self.side - 1) / 2)
        return torch.cartesian_prod(axis, axis)

    @override
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return _sample_round(self.means, self.scale, n, generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """log density in nats, `[n, 2]` -> float64 `[n]`."""
        return _log_prob_round(_checked(x, self.spec), self.means, self.scale)


@final
@dataclass(frozen=True)
class BernoulliTemplates(Density):
    """Binary images `[n, 1, size, size]`: one of equally likely templates, then independent pixels.

    log P(x) = log mean_k prod_i p_ki^x_i (1 - p_ki)^(1 - x_i), each template p_k a sum of smooth blobs.
    """

    size: int = 28
    components: int = 10
    seed: int = 0

    @property
    @override
    def spec(self) -> DataSpec:
        return DataSpec((1, self.size, self.size), levels=2)

    @cached_property
    def templates(self) -> Tensor:
        """P(pixel is 1), float64 `[components, size * size]`, within 0.02..0.98."""
        return 0.02 + 0.96 * _blobs(self.components, self.size, self.seed)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws uint8 `[n, 1, size, size]` of zeros and ones."""
        which = torch.randint(self.components, (n,), generator=generator)
        parts = [
            torch.rand(len(w), self.size**2, dtype=torch.float64, generator=generator) < self.templates[w]
            for w in which.split(_CHUNK)
        ]
        return torch.cat(parts).to(torch.uint8).reshape(n, *self.spec.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """log P(x) in nats, `[n, 1, size, size]` -> float64 `[n]`."""
        p = self.templates
        log_odds, log_off = (p / (1 - p)).log(), (1 - p).log().sum(1)  # [k, d], [k]
        parts = [c.flatten(1).double() @ log_odds.T + log_off for c in _checked(x, self.spec).split(_CHUNK)]
        return torch.cat(parts).logsumexp(1) - math.log(self.components)


@final
@dataclass(frozen=True)
class DiscretisedMixture(Density):
    """Grey images `[n, 1, size, size]`: one of equally likely templates, then independent discretised logistics.

    P(v) = F((v + 1/2 - mu)/s) - F((v - 1/2 - mu)/s) with F the logistic CDF, mu the template's pixel and s
    the template's scale; the edge levels also hold the tail beyond them (Salimans et al. 2017, eq. 2).
    """

    size: int = 28
    components: int = 4
    levels: int = 256
    seed: int = 0

    @property
    def spec(self) -> DataSpec:
        """`levels` levels, `(1, size, size)`."""
        return DataSpec((1, self.size, self.size), levels=self.levels)

    @cached_property
    def _locations(self) -> Tensor:
        """mu, float64 `[components, size * size]`; bright and dark spots lie on the edge levels."""
        return (self.levels - 1) * (1.1 * _blobs(self.components, self.size, self.seed) - 0.05)

    @cached_property
    def _scales(self) -> Tensor:
        """s, float64 `[components]`: from 1/64 to 1/32 of the range."""
        return self.levels * torch.linspace(1 / 64, 1 / 32, self.components, dtype=torch.float64)

    @cached_property
    def _table(self) -> Tensor:
        """log P(v) of every component, pixel and level, float64 `[components, size * size, levels]`.

        With a, b the standardised lower and upper edge, F(b) - F(a) = F(b) F(-a) (1 - exp(a - b)), which
        loses no digits in the tails.
        """
        level = torch.arange(self.levels, dtype=torch.float64)
        centre = level - self._locations[:, :, None]
        scale = self._scales[:, None, None]
        upper, lower = logsigmoid((centre + 0.5) / scale), logsigmoid(-(centre - 0.5) / scale)
        table = upper + lower + (-torch.exp(-1 / scale)).log1p()
        table[..., 0], table[..., -1] = upper[..., 0], lower[..., -1]
        return table

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws uint8 `[n, 1, size, size]`: a continuous logistic, rounded and clipped."""
        which = torch.randint(self.components, (n,), generator=generator)
        parts = []
        for w in which.split(_CHUNK):
            u = torch.rand(len(w), self.size**2, dtype=torch.float64, generator=generator)
            y = self._locations[w] + self._scales[w, None] * u.logit()
            parts.append(y.round().clamp(0, self.levels - 1).to(torch.uint8))
        return torch.cat(parts).reshape(n, *self.spec.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """log P(x) in nats, `[n, 1, size, size]` -> float64 `[n]`."""
        parts = []
        for chunk in _checked(x, self.spec).split(_CHUNK):
            values = chunk.flatten(1).long().T  # [d, n]
            parts.append(torch.stack([table.gather(1, values).sum(0) for table in self._table]))
        return torch.cat(parts, dim=1).logsumexp(0) - math.log(self.components)


def _sample_round(means: Tensor, scale: float, n: int, generator: torch.Generator | None) -> Tensor:
    """`n` draws of equally likely round Gaussians around `means` `[k, d]`, float32 `[n, d]`."""
    which = torch.randint(len(means), (n,), generator=generator)
    eps = torch.randn(n, means.shape[1], dtype=torch.float64, generator=generator)
    return (means[which] + scale * eps).float()


def _log_prob_round(x: Tensor, means: Tensor, scale: float) -> Tensor:
    """Their log density, `[n, d]` -> float64 `[n]`."""
    gaps = x.double()[:, None] - means  # [n, k, d]
    k, d = means.shape
    each = -0.5 * (gaps / scale).square().sum(2) - 0.5 * d * math.log(2 * math.pi * scale**2)
    return each.logsumexp(1) - math.log(k)


def _blobs(count: int, size: int, seed: int) -> Tensor:
    """`count` smooth pictures in 0..1, float64 `[count, size * size]`: sums of three blobs, scaled to peak at 1.

    Positions and widths are relative to `size` and come from NumPy's frozen RandomState.
    """
    random = np.random.RandomState(seed)
    centre = random.uniform(0.15, 0.85, size=(count, 3, 2, 1, 1))
    width = random.uniform(0.08, 0.2, size=(count, 3, 1, 1))
    grid = (np.arange(size) + 0.5) / size
    squared = (grid[:, None] - centre[:, :, 0]) ** 2 + (grid[None, :] - centre[:, :, 1]) ** 2
    pictures = np.exp(-0.5 * squared / width**2).sum(1).reshape(count, -1)
    return torch.from_numpy(pictures / pictures.max(axis=1, keepdims=True))


def _checked(x: Tensor, spec: DataSpec) -> Tensor:
    if tuple(x.shape[1:]) != spec.shape:
        raise GenzooError(
            f"x must have the shape (n, {', '.join(map(str, spec.shape))}), got {tuple(x.shape)}"
        )
    if spec.levels is not None and len(x) and (int(x.min()) < 0 or int(x.max()) >= spec.levels):
        raise GenzooError(f"x must hold the levels 0..{spec.levels - 1}")
    return x.cpu()
