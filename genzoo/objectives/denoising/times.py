"""Timestep distributions in training, t = 0 data, t = 1 noise.

A distribution either changes only the variance of the objective (uniform, stratified, uniform in log-SNR, learned) or
is part of the objective by intention (logit-normal, EDM's log-normal sigma); what is drawn says which.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.objectives.denoising.paths import GaussianPath


class DrawnTimes(NamedTuple):
    """Times and what their distribution means for an average over them.

    `times` float64 `[n]` lie in [`t_min`, 1]. Where `unbiased`, `weights` `[n]` (float64) are 1 / density, so that the
    mean of weights * f(times) estimates the integral of f from `t_min` to 1: with `ELBOWeighting` a term of the
    bound. Otherwise the timestep distribution is part of the weighting by intention, `weights` are 1 and no bound
    follows.
    """

    times: Tensor
    weights: Tensor
    t_min: float
    unbiased: bool


class TimeSampler(Configurable, ABC):
    """A timestep distribution: training times are drawn from it."""

    @final
    def draw(
        self,
        n: int,
        path: GaussianPath,
        generator: torch.Generator | None = None,
        *,
        t_min: float | None = None,
    ) -> DrawnTimes:
        """`n` times from `t_min` (None: the path's own) to 1, on the generator's device.

        Raises `GenzooError` where `t_min` does not lie in [0, 1).
        """
        t_min = path.t_min if t_min is None else t_min
        if not 0 <= t_min < 1:
            raise GenzooError(f"the first time must lie in [0, 1), got {t_min}")
        return self.draw_from(n, path, t_min, generator)

    @abstractmethod
    def draw_from(
        self, n: int, path: GaussianPath, t_min: float, generator: torch.Generator | None
    ) -> DrawnTimes:
        """`n` times from `t_min` to 1."""

    def update(self, drawn: DrawnTimes, losses: Tensor) -> None:
        """Shows the distribution the losses `[n]` at the times it drew, not multiplied by importance weights."""
        return  # only a distribution that learns takes notice

    def build(self) -> "TimeSampler":
        """What a model keeps: distributions without a state are their own configuration."""
        return self


@dataclass(frozen=True)
class UniformTimes(TimeSampler):
    """Independent and uniform."""

    @override
    def draw_from(
        self, n: int, path: GaussianPath, t_min: float, generator: torch.Generator | None
    ) -> DrawnTimes:
        return _uniform_between(t_min, _uniform(n, generator))


@dataclass(frozen=True)
class StratifiedTimes(TimeSampler):
    """One uniform time in each of n equal strata, in random order, so that no image keeps a stratum.

    Each time is uniform by itself and their mean varies far less: low-discrepancy times (Kingma et al. 2021,
    appendix I) with an offset of its own in each stratum.
    """

    @override
    def draw_from(
        self, n: int, path: GaussianPath, t_min: float, generator: torch.Generator | None
    ) -> DrawnTimes:
        return _uniform_between(t_min, _stratified(n, generator))


@dataclass(frozen=True)
class UniformLogSNR(TimeSampler):
    """Stratified times at which the log-SNR is uniform between its values at first and at 1.

    With weights 1 / density the bound's weight -1/2 d log_snr / dt becomes constant: its estimate varies less
    than with uniform t, where the weight grows like 1 / t near the data.
    """

    def draw_from(
        self, n: int, path: GaussianPath, t_min: float, generator: torch.Generator | None
    ) -> DrawnTimes:
        """Unbiased; raises `GenzooError` where an end's log-SNR is infinite."""
        u = _stratified(n, generator)
        high, low = path.log_snr(torch.tensor([t_min, 1.0], dtype=u.dtype, device=u.device))
        if not bool((high - low).isfinite()):
            raise GenzooError(
                "UniformLogSNR needs a finite log-SNR at both ends: a first time above 0, not Linear()"
            )
        times = path.time_of(high + (low - high) * u).clamp(t_min, 1)
        at = path.at(times)
        slope = 2 * (at.d_sigma / at.sigma - at.d_alpha / at.alpha)
        return DrawnTimes(times, (high - low) / slope, t_min, unbiased=True)


@dataclass(frozen=True)
class LogitNormal(TimeSampler):
    """t = sigmoid(N(mean, std^2)), laid over [first, 1] (Esser et al. 2024, section 3.1: SD3)."""

    mean: float = 0.0
    """Above 0: more noise."""
    std: float = 1.0
    """Of the logit."""

    def __post_init__(self) -> None:
        _check_std(self.std)

    def draw_from(
        self, n: int, path: GaussianPath, t_min: float, generator: torch.Generator | None
    ) -> DrawnTimes:
        """Not corrected: the distribution is the weighting."""
        times = t_min + (1 - t_min) * torch.sigmoid(self.mean + self.std * _normal(n, generator))
        return DrawnTimes(times, torch.ones_like(times), t_min, unbiased=False)


@dataclass(frozen=True)
class LogNormalSigma(TimeSampler):
    """log(sigma / alpha) ~ N(mean, std^2) on any path (Karras et al. 2022, table 1).

    Noise beyond either end of the path is taken at that end.
    """

    mean: float = -1.2
    """Of log(sigma / alpha)."""
    std: float = 1.2
    """Of log(sigma / alpha)."""

    def __post_init__(self) -> None:
        _check_std(self.std)

    def draw_from(
        self, n: int, path: GaussianPath, t_min: float, generator: torch.Generator | None
    ) -> DrawnTimes:
        """Not corrected: the distribution is the weighting."""
        log_sigma = self.mean + self.std * _normal(n, generator)
        times = path.time_of(-2 * log_sigma).clamp(t_min, 1)
        return DrawnTimes(times, torch.ones_like(times), t_min, unbiased=False)


@dataclass(frozen=True)
class Importance(Configurable):
    """Configuration of `LearnedImportance`."""

    bins: int = 64
    """Intervals of equal length, each with one density."""
    horizon: float = 20.0
    """Losses per interval over which its second moment is averaged."""
    uniform_fraction: float = 0.01
    """Share of the times drawn uniformly; bounds importance weights by its inverse."""

    def __post_init__(self) -> None:
        if self.bins < 2 or self.horizon < 1 or not 0 < self.uniform_fraction <= 1:
            raise GenzooError("Importance needs bins >= 2, horizon >= 1 and 0 < uniform_fraction <= 1")

    def build(self) -> "LearnedImportance":
        """Knows nothing yet, so it draws uniformly."""
        return LearnedImportance(self)


class LearnedImportance(nn.Module, TimeSampler):
    """Times where the loss is large: p(t) ~ sqrt(E[loss^2 | t]) in each of some intervals, by importance sampling.

    Nichol & Dhariwal 2021, equation 18. The density that makes the variance of weights * loss least; uniform until
    every interval has shown `horizon` losses. Times within a batch are stratified. The statistics are buffers.
    """

    second_moments: Tensor
    seen: Tensor

    def __init__(self, config: Importance) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("second_moments", torch.zeros(config.bins))
        self.register_buffer("seen", torch.zeros(config.bins, dtype=torch.long))

    @property
    def masses(self) -> Tensor:
        """The probability of each interval, float64 `[bins]`."""
        bins, share = self.config.bins, self.config.uniform_fraction
        roots = self.second_moments.double().sqrt()
        if int(self.seen.min()) < self.config.horizon or not float(roots.sum()) > 0:
            return torch.full_like(roots, 1 / bins)
        return (1 - share) * roots / roots.sum() + share / bins

    def draw_from(
        self, n: int, path: GaussianPath, t_min: float, generator: torch.Generator | None
    ) -> DrawnTimes:
        """Unbiased: weights are 1 / density."""
        bins, u = self.config.bins, _stratified(n, generator)
        masses = self.masses.to(u)
        ends = masses.cumsum(0)
        number = torch.searchsorted(ends, u, right=True).clamp(max=bins - 1)
        inside = 1 - (ends[number] - u) / masses[number]
        times = t_min + (1 - t_min) * (number + inside.clamp(0, 1)) / bins
        return DrawnTimes(times, (1 - t_min) / (masses[number] * bins), t_min, unbiased=True)

    @torch.no_grad()
    def update(self, drawn: DrawnTimes, losses: Tensor) -> None:
        """Moves the second moments of the intervals that were hit; a loss that is no finite number is left out."""
        share = (drawn.times - drawn.t_min) / (1 - drawn.t_min)
        number = (share * self.config.bins).long().clamp(0, self.config.bins - 1).to(self.seen.device)
        squares = losses.detach().to(self.second_moments).square()
        finite = squares.isfinite()
        count = torch.zeros_like(self.seen).index_add_(0, number, finite.long())
        total = torch.zeros_like(self.second_moments).index_add_(0, number, squares.where(finite, 0.0))
        # a plain mean over the first `horizon` losses, from then on an exponential one
        gain = count / (self.seen + count).clamp(min=1, max=self.config.horizon)
        gain = gain.clamp(max=1).to(total)
        mean = total / count.clamp(min=1)
        self.second_moments += gain * (mean - self.second_moments)
        self.seen += count


def _uniform(n: int, generator: torch.Generator | None) -> Tensor:
    """Float64 `[n]` in [0, 1)."""
    return torch.rand(n, generator=generator, dtype=torch.float64, device=_device(generator))


def _normal(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(n, generator=generator, dtype=torch.float64, device=_device(generator))


def _stratified(n: int, generator: torch.Generator | None) -> Tensor:
    """One uniform number in each [k / n, (k + 1) / n), shuffled."""
    order = torch.randperm(n, generator=generator, device=_device(generator))
    return (order + _uniform(n, generator)) / n


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def _uniform_between(t_min: float, u: Tensor) -> DrawnTimes:
    times = t_min + (1 - t_min) * u
    return DrawnTimes(times, torch.full_like(times, 1 - t_min), t_min, unbiased=True)


def _check_std(std: float) -> None:
    if not std > 0:
        raise GenzooError(f"a timestep distribution needs std > 0, got {std}")
