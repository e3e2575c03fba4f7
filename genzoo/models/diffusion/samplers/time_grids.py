"""Time grids: n steps as n + 1 times, float64, from `start` (1 unless told) strictly down to `last`.

`last` is the path's first time unless told. Where the path has no noise there, its log-SNR is infinite, and the grids
that are even in some function of sigma / alpha lay n times from `sigma_max` to `sigma_min` and then step to `last`.
The first time is `start` itself, even where sigma / alpha is beyond `sigma_max` there (infinite on the linear path).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from genzoo.core.bounds import Positive
from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.models.diffusion.samplers.base_sampler import CLEAN
from genzoo.objectives.denoising.paths import GaussianPath

FINEST = 0.004
"""Half a grey level of 256 where the range of an image is 2."""
COARSEST = 1.2
"""By the distance to fine solutions from the same noise, in 5 to 30 steps of `AdamsMoulton` with a trained flow."""


class TimeGrid(Configurable, ABC):
    """Where a sampler stops on its way."""

    @abstractmethod
    def __call__(self, path: GaussianPath, n: int) -> Tensor:
        """Times float64 `[n + 1]`, descending; raises `GenzooError` where no such times exist."""


@dataclass(frozen=True)
class UniformGrid(TimeGrid):
    """Steps of equal length in t.

    >>> from genzoo.objectives.denoising.paths import Linear
    >>> UniformGrid()(Linear(), 4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """

    start: float = 1.0
    last: float | None = None

    @override
    def __call__(self, path: GaussianPath, n: int) -> Tensor:
        return torch.linspace(
            self.start, _checked(path, n, self.start, self.last), n + 1, dtype=torch.float64
        )


@dataclass(frozen=True)
class KarrasGrid(TimeGrid):
    """Even in (sigma / alpha)^(1 / rho) (Karras et al. 2022, equation 5)."""

    rho: Positive = 7.0
    """The larger, the shorter the steps near the data."""
    sigma_min: Positive = 0.004
    """sigma / alpha before a last step to no noise: half a grey level of 256 where the range of an image is 2."""
    sigma_max: Positive = 80.0
    """sigma / alpha beyond which there is nothing to see."""
    start: float = 1.0
    last: float | None = None

    def __call__(self, path: GaussianPath, n: int) -> Tensor:
        """Through the noise levels' roots."""
        last = _checked(path, n, self.start, self.last)
        high, low, levels = _levels(path, n, (self.start, last), (self.sigma_max, self.sigma_min))
        roots = torch.linspace(high ** (1 / self.rho), low ** (1 / self.rho), levels, dtype=torch.float64)
        return _times(path, roots.log() * self.rho, n, (self.start, last))


@dataclass(frozen=True)
class LogSNRGrid(TimeGrid):
    """Even in log(alpha / sigma) (Lu et al. 2022)."""

    sigma_min: Positive | None = None
    """sigma / alpha before a last step to no noise. None: `COARSEST` / n, so that few steps are not spent on noise that
    one can remove at once, and half a grey level of 256 (where the range of an image is 2) for many."""
    sigma_max: Positive = 40.0
    """sigma / alpha beyond which there is nothing to see."""
    start: float = 1.0
    last: float | None = None

    def __call__(self, path: GaussianPath, n: int) -> Tensor:
        """Through the noise levels' logarithms."""
        last = _checked(path, n, self.start, self.last)
        high, low, levels = _levels(path, n, (self.start, last), (self.sigma_max, self._smallest(path, n)))
        logs = torch.linspace(math.log(high), math.log(low), levels, dtype=torch.float64)
        return _times(path, logs, n, (self.start, last))

    def _smallest(self, path: GaussianPath, n: int) -> float:
        if self.sigma_min is not None:
            return self.sigma_min
        return min(max(FINEST, COARSEST / n), 0.5 * _noise(path, self.start))  # a start may be nearly clean


@dataclass(frozen=True)
class LogisticGrid(TimeGrid):
    """log(sigma / alpha) at even quantiles of a logistic distribution: short steps where images take shape.

    The distribution of noise levels that logit-normal training times follow on the straight path (Esser et al. 2024),
    in closed form. The quantiles run from 1 - 0.15 / n to 1.2 / n, so that few steps are not spent at the ends.
    """

    mean: float = 0.5
    """log(sigma / alpha) where the steps are shortest."""
    scale: Positive = 1.1
    """The larger, the more steps at both ends."""
    start: float = 1.0
    last: float | None = None

    def __call__(self, path: GaussianPath, n: int) -> Tensor:
        """By the inverse of its distribution function, between the ends of the path."""
        last = _checked(path, n, self.start, self.last)
        high, low = (self._share(_noise(path, t)) for t in (self.start, last))
        clean = _noise(path, last) <= CLEAN
        top = min(high, 1 - 0.15 / n)
        bottom = min(max(low, 1.2 / n), 0.5 * top) if clean else low
        shares = torch.linspace(top, bottom, n if clean else n + 1, dtype=torch.float64)
        return _times(path, self.mean + self.scale * shares.logit(), n, (self.start, last))

    def _share(self, noise: float) -> float:
        """Its distribution function at sigma / alpha."""
        return 1 / (1 + (math.exp(self.mean) / noise) ** (1 / self.scale)) if noise > CLEAN else 0.0


def _checked(path: GaussianPath, n: int, start: float, last: float | None) -> float:
    last = path.t_min if last is None else last
    if n < 1 or not path.t_min <= last < start <= 1:
        raise GenzooError(
            f"a time grid needs n >= 1 steps and {path.t_min} <= last < start <= 1, got n={n}, {last=}, {start=}"
        )
    return last


def _noise(path: GaussianPath, t: float) -> float:
    """sigma / alpha, infinite where alpha is 0."""
    alpha, sigma, _, _ = path.at(torch.tensor(t, dtype=torch.float64))
    return float(sigma / alpha)


def _levels(
    path: GaussianPath, n: int, ends: tuple[float, float], limits: tuple[float, float]
) -> tuple[float, float, int]:
    """Largest and smallest sigma / alpha to spread, and over how many times: a last one without noise is extra."""
    high, low = _noise(path, ends[0]), _noise(path, ends[1])
    clean = low <= CLEAN
    high, low = min(high, limits[0]), limits[1] if clean else low
    if not 0 < low < high:
        raise GenzooError(
            f"a time grid needs 0 < sigma_min < sigma_max, got {low:.4g} and {high:.4g} on this path"
        )
    return high, low, n if clean else n + 1


def _times(path: GaussianPath, log_noise: Tensor, n: int, ends: tuple[float, float]) -> Tensor:
    """Times of log(sigma / alpha), with both ends set to what they are without rounding."""
    times = torch.empty(n + 1, dtype=torch.float64)
    times[: len(log_noise)] = path.time_of(-2 * log_noise)
    times[0], times[-1] = ends
    return times
