"""Gaussian paths from data to noise, and the quantities that a network may be asked to predict along them.

    x_t = alpha(t) x + sigma(t) eps,    eps ~ N(0, 1),    t = 0 data, t = 1 noise
    y   = a x + b eps                                       (a target: noise, data, v, velocity, EDM's F)

DDPM, VDM, EDM and flow matching are rows of data: a path, a target, a weighting, a timestep distribution, a coupling, a
sampler. With det = alpha b - sigma a every prediction converts into every other,

    x = (b x_t - sigma y) / det,    eps = (alpha y - a x_t) / det,    |y - y'|^2 = (det / alpha)^2 |eps - eps'|^2

(flow-matching papers often let time run the other way). Times are float64 `[b]`, or 0-dimensional for all images.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from genzoo.core.bounds import Positive
from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.objectives.denoising.betas import Betas, LinearBetas


class Coefficients(NamedTuple):
    """alpha, sigma and their derivatives by t, each shaped like the times they belong to."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


class GaussianPath(Configurable, ABC):
    """x_t = alpha(t) x + sigma(t) eps for t in [`t_min`, 1]; log(alpha / sigma) falls with t."""

    t_min: float = 0.0
    """The smallest time at which the path may be asked: 0 where sigma(0) = 0 does no harm."""

    @abstractmethod
    def at(self, t: Tensor) -> Coefficients:
        """The coefficients at times `t` `[...]`."""

    @abstractmethod
    def time_of(self, log_snr: Tensor) -> Tensor:
        """The time at which log(alpha^2 / sigma^2) is `log_snr` `[...]`: the inverse of `log_snr`."""

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) at times `t` `[...]`."""
        alpha, sigma, _, _ = self.at(t)
        return 2 * (alpha.log() - sigma.log())

    def mix(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t `[b, ...]` of data `x` and noise `eps` `[b, ...]` at times `t` `[b]`."""
        alpha, sigma, _, _ = self.at(t)
        return append_dims(alpha, x) * x + append_dims(sigma, x) * eps


def append_dims(coefficient: Tensor, like: Tensor) -> Tensor:
    """`[b]` (or a scalar) shaped to multiply `like` `[b, ...]`, in its type and on its device."""
    coefficient = coefficient.to(like)
    return coefficient if coefficient.ndim == 0 else coefficient.view(-1, *[1] * (like.ndim - 1))


# --- variance-preserving paths -------------------------------------------------------------------------------


@dataclass(frozen=True)
class VPLinear(GaussianPath):
    """alpha^2 = exp(-beta_min t - (beta_max - beta_min) t^2 / 2), sigma^2 = 1 - alpha^2.

    Song et al. 2021, "Score-Based Generative Modeling through SDEs", equation 33: DDPM's linear betas in the limit.
    """

    beta_min: float = 0.1
    """Noise rate at t = 0."""
    beta_max: float = 20.0
    """Noise rate at t = 1."""

    def __post_init__(self) -> None:
        _check_rising("betas", self.beta_min, self.beta_max)

    def at(self, t: Tensor) -> Coefficients:
        """Through log alpha, so that sigma is exact near 0."""
        slope = self.beta_max - self.beta_min
        log_alpha = -0.25 * slope * t**2 - 0.5 * self.beta_min * t
        return _preserving(log_alpha, -0.5 * (slope * t + self.beta_min))

    def time_of(self, log_snr: Tensor) -> Tensor:
        """The root of a quadratic: -log alpha^2 = softplus(-log_snr)."""
        slope = self.beta_max - self.beta_min
        exponent = torch.nn.functional.softplus(-log_snr)
        root = (self.beta_min**2 + 2 * slope * exponent).sqrt()
        return 2 * exponent / (self.beta_min + root)


@dataclass(frozen=True)
class VPCosine(GaussianPath):
    """alpha = cos(angle) / cos(angle at 0), angle = (t' + s) / (1 + s) * pi / 2, sigma^2 = 1 - alpha^2.

    Nichol & Dhariwal 2021, "Improved DDPM", equation 17, with t' = t * `last`: at t = 1 a little of the data is
    left, so that the log-SNR stays finite (the paper clips the last of its discrete betas to the same end).
    """

    offset: float = 0.008
    """s: keeps the noise near t = 0 from being too small."""
    last: float = 0.9946
    """Share of the schedule that t = 1 stands for: log-SNR -9.55 (Lu et al. 2022, "DPM-Solver")."""

    def at(self, t: Tensor) -> Coefficients:
        """cos(u + v) / cos(u) = 1 - (2 sin^2(v / 2) + tan(u) sin(v)), so that sigma is exact near 0."""
        speed = self.last / (1 + self.offset) * math.pi / 2
        turned = speed * t
        lost = 2 * (0.5 * turned).sin() ** 2 + math.tan(self._first_angle) * turned.sin()
        return _preserving(torch.log1p(-lost), -speed * (turned + self._first_angle).tan())

    @override
    def time_of(self, log_snr: Tensor) -> Tensor:
        alpha = torch.sigmoid(log_snr).sqrt()
        angle = torch.acos(alpha * math.cos(self._first_angle))
        return (angle - self._first_angle) / (self.last / (1 + self.offset) * math.pi / 2)

    @property
    def _first_angle(self) -> float:
        return self.offset / (1 + self.offset) * math.pi / 2


@dataclass(frozen=True)
class Trigonometric(GaussianPath):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Salimans & Ho 2022; Albergo et al. 2023)."""

    def at(self, t: Tensor) -> Coefficients:
        """The derivatives are each other's."""
        angle, speed = 0.5 * math.pi * t, 0.5 * math.pi
        cos, sin = angle.cos(), angle.sin()
        return Coefficients(cos, sin, -speed * sin, speed * cos)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """sigma / alpha = tan(pi t / 2)."""
        return torch.atan(torch.exp(-0.5 * log_snr)) * 2 / math.pi


@dataclass(frozen=True)
class SubVP(GaussianPath):
    """VPLinear's alpha with sigma = 1 - alpha^2 (Song et al. 2021, equation 29)."""

    beta_min: float = 0.1
    """Noise rate at t = 0."""
    beta_max: float = 20.0
    """Noise rate at t = 1."""

    def __post_init__(self) -> None:
        _check_rising("betas", self.beta_min, self.beta_max)

    def at(self, t: Tensor) -> Coefficients:
        """From the preserving path's alpha."""
        alpha, _, d_alpha, _ = VPLinear(self.beta_min, self.beta_max).at(t)
        log_alpha = -0.25 * (self.beta_max - self.beta_min) * t**2 - 0.5 * self.beta_min * t
        return Coefficients(alpha, -torch.expm1(2 * log_alpha), d_alpha, -2 * alpha * d_alpha)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """alpha / (1 - alpha^2) = r has the root alpha = 2 r / (1 + sqrt(1 + 4 r^2))."""
        r = torch.exp(0.5 * log_snr)
        alpha = 2 * r / (1 + (1 + 4 * r**2).sqrt())
        variance = -torch.expm1(2 * alpha.log())
        return VPLinear(self.beta_min, self.beta_max).time_of(2 * alpha.log() - variance.log())


# --- DDPM's own steps ----------------------------------------------------------------------------------------

_ROUNDING = 1e-9
"""How far t T may be from a whole number that it stands for, in steps."""


@dataclass(frozen=True)
class DiscreteBetas(GaussianPath):
    """DDPM's T states exactly: alpha^2 = prod_{j <= i} (1 - beta_j) at t = (i + 1) / T, sigma^2 = 1 - alpha^2.

    Between two states the log-SNR is linear in t. Before the first, where the log-SNR comes from infinity,
    sigma^2 = beta_0 t T, so that t = 0 is the data (alpha = 1, sigma = 0) as in DDPM's last sampling step; no network
    of DDPM was trained there, so `t_min` is 1 / T. Raises `GenzooError` for less than 2 betas or betas outside
    (0, 1).
    """

    betas: Betas = field(default_factory=LinearBetas)
    """The schedule."""

    def __post_init__(self) -> None:
        betas = self.betas.values()
        if len(betas) < 2 or not bool(((betas > 0) & (betas < 1)).all()):
            raise GenzooError("discrete betas must be two or more numbers above 0 and below 1")

    @property
    def steps(self) -> int:
        """The number T of steps."""
        return len(self._log_snr)

    @property
    def t_min(self) -> float:
        """The time of the first step, 1 / T."""
        return 1 / self.steps

    def at(self, t: Tensor) -> Coefficients:
        """Derivatives are those of the interpolation: right-hand ones at DDPM's states, left-hand at t = 1."""
        log_snr, slope = self._interpolated(t)
        beta, at_start = self._first_beta, t * self.steps < 1 - _ROUNDING
        variance = beta * (t * self.steps).clamp(max=1)
        early, late = 0.5 * torch.log1p(-variance), 0.5 * torch.nn.functional.logsigmoid(log_snr)
        d_early = -0.5 * beta * self.steps / (1 - variance)
        d_late = 0.5 * torch.sigmoid(-log_snr) * slope
        return _preserving(torch.where(at_start, early, late), torch.where(at_start, d_early, d_late))

    def time_of(self, log_snr: Tensor) -> Tensor:
        """Each segment's line, extended beyond t = 1."""
        nodes = self._log_snr.to(log_snr)
        left = (torch.searchsorted(-nodes, -log_snr, right=True) - 1).clamp(0, self.steps - 2)
        late = left + 1 + (nodes[left] - log_snr) / (nodes[left] - nodes[left + 1])
        early = torch.sigmoid(-log_snr) / self._first_beta
        return torch.where(log_snr > nodes[0], early, late) / self.steps

    def _interpolated(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The line through the two neighbouring states at `t`, and its slope."""
        nodes = self._log_snr.to(t)
        place = t * self.steps - 1
        left = (place + _ROUNDING).floor().clamp(0, self.steps - 2).long()
        step = nodes[left + 1] - nodes[left]
        return nodes[left] + (place - left) * step, step * self.steps

    @cached_property
    def _log_snr(self) -> Tensor:
        """Of the T states."""
        log_kept = torch.log1p(-self.betas.values()).cumsum(0)
        return log_kept - torch.log(-torch.expm1(log_kept))

    @cached_property
    def _first_beta(self) -> float:
        return self.betas.values()[0].item()


# --- others ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear(GaussianPath):
    """alpha = 1 - t, sigma = t: rectified flow, conditional optimal transport (Liu et al., Lipman et al. 2023)."""

    @override
    def at(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(1 - t, t, -one, one)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """t / (1 - t) = exp(-log_snr / 2)."""
        return torch.sigmoid(-0.5 * log_snr)


@dataclass(frozen=True)
class VE(GaussianPath):
    """alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t (Song et al. 2021, equation 31; Karras et al. 2022)."""

    sigma_min: float = 0.002
    """Noise at t = 0, where the range of an image is 2."""
    sigma_max: float = 80.0
    """Noise at t = 1."""

    def __post_init__(self) -> None:
        _check_rising("sigmas", self.sigma_min, self.sigma_max)

    @override
    def at(self, t: Tensor) -> Coefficients:
        rate = math.log(self.sigma_max / self.sigma_min)
        sigma = self.sigma_min * torch.exp(rate * t)
        return Coefficients(torch.ones_like(t), sigma, torch.zeros_like(t), rate * sigma)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """sigma = exp(-log_snr / 2)."""
        return (-0.5 * log_snr - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)


def _check_rising(what: str, low: float, high: float) -> None:
    if not 0 < low < high:
        raise GenzooError(f"the {what} of a path must be positive and rise, got {low} and {high}")


def _preserving(log_alpha: Tensor, d_log_alpha: Tensor) -> Coefficients:
    """sigma^2 = 1 - alpha^2; d sigma = -alpha d alpha / sigma, which is infinite where sigma is 0."""
    alpha, sigma = log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()
    d_alpha = alpha * d_log_alpha
    return Coefficients(alpha, sigma, d_alpha, -alpha * d_alpha / sigma)


# --- targets -------------------------------------------------------------------------------------------------


class Target(Configurable, ABC):
    """What the network predicts: y = a x + b eps."""

    @abstractmethod
    def coefficients(self, path: Coefficients) -> tuple[Tensor, Tensor]:
        """a and b, shaped like the path's."""

    def of(self, x: Tensor, eps: Tensor, path: Coefficients) -> Tensor:
        """y `[b, ...]` of data and noise `[b, ...]`."""
        a, b = self.coefficients(path)
        return append_dims(a, x) * x + append_dims(b, x) * eps


@dataclass(frozen=True)
class NoiseTarget(Target):
    """y = eps (Ho et al. 2020)."""

    @override
    def coefficients(self, path: Coefficients) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(path.alpha), torch.ones_like(path.alpha)


@dataclass(frozen=True)
class DataTarget(Target):
    """y = x."""

    @override
    def coefficients(self, path: Coefficients) -> tuple[Tensor, Tensor]:
        return torch.ones_like(path.alpha), torch.zeros_like(path.alpha)


@dataclass(frozen=True)
class VTarget(Target):
    """y = alpha eps - sigma x (Salimans & Ho 2022, appendix D)."""

    @override
    def coefficients(self, path: Coefficients) -> tuple[Tensor, Tensor]:
        return -path.sigma, path.alpha


@dataclass(frozen=True)
class VelocityTarget(Target):
    """y = alpha' x + sigma' eps, the velocity of the flow (Lipman et al. 2023; Albergo & Vanden-Eijnden 2023)."""

    @override
    def coefficients(self, path: Coefficients) -> tuple[Tensor, Tensor]:
        return path.d_alpha, path.d_sigma


@dataclass(frozen=True)
class EDMTarget(Target):
    """F of x = c_skip x_t + c_out F (Karras et al. 2022, equation 7, there with alpha = 1); F has variance 1."""

    sigma_data: Positive = 0.5
    """Standard deviation of the data."""

    def coefficients(self, path: Coefficients) -> tuple[Tensor, Tensor]:
        """F = (x - c_skip x_t) / c_out, with s^2 = sigma^2 + (alpha sigma_data)^2 the variance of x_t:

        c_skip = alpha sigma_data^2 / s^2, c_out = sigma sigma_data / s; so a = sigma / (sigma_data s) and
        b = -alpha sigma_data / s, which need no division by sigma.
        """
        signal = path.alpha * self.sigma_data
        deviation = (path.sigma**2 + signal**2).sqrt()
        return path.sigma / (self.sigma_data * deviation), -signal / deviation


class Prediction(NamedTuple):
    """What a network predicts: data x0 and noise eps, both `[b, ...]`."""

    x0: Tensor
    eps: Tensor


Denoiser = Callable[[Tensor, Tensor], Prediction]
"""What samplers and likelihoods know of a network: x_t `[b, ...]` and times float64 `[b]` to data and noise."""


def to_prediction(x_t: Tensor, y: Tensor, path: Coefficients, target: Target) -> Prediction:
    """Data and noise such that x_t = alpha x + sigma eps and y = a x + b eps; `x_t`, `y` `[b, ...]`.

    Where det = alpha b - sigma a is 0 (the noise at t = 0, the data at t = 1 from their own prediction) the
    division is by zero: ask a little inside.
    """
    a, b = target.coefficients(path)
    det = path.alpha * b - path.sigma * a
    x = append_dims(b / det, x_t) * x_t - append_dims(path.sigma / det, x_t) * y
    eps = append_dims(path.alpha / det, x_t) * y - append_dims(a / det, x_t) * x_t
    return Prediction(x, eps)


def velocity_of(prediction: Prediction, path: Coefficients) -> Tensor:
    """dx_t/dt = alpha' x + sigma' eps `[b, ...]`: the right-hand side of the probability-flow ODE."""
    return (
        append_dims(path.d_alpha, prediction.x0) * prediction.x0
        + append_dims(path.d_sigma, prediction.x0) * prediction.eps
    )
