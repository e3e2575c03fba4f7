"""Learning to denoise: one squared error for diffusion and flow matching, and its weights.

    loss(x) = E_t E_eps w(t) |eps - eps_hat(x_t, t)|^2,    x_t = alpha x + sigma eps

Every weighting is given as w, the weight of the noise's error; since |y - y_hat|^2 = (det / alpha)^2 |eps - eps_hat|^2
it converts to the error of any target. With w = -1/2 d log_snr / dt and t uniform the loss is the diffusion term of
the variational bound in nats (Kingma et al. 2021, "Variational Diffusion Models", section 5). Any monotone
weighting of it is a bound for noised data (Kingma & Gao 2023, "Understanding Diffusion Objectives as the ELBO").
What counts is the product of the weighting and the density of the times (`times.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.objectives.denoising.paths import Coefficients, GaussianPath, Target, append_dims

Predict = Callable[[Tensor, Tensor], Tensor]
"""A network's raw prediction of the target: x_t `[b, ...]` and times float64 `[b]` to y_hat `[b, ...]`."""


def denoising_loss(
    predict: Predict,
    x: Tensor,
    path: GaussianPath,
    target: Target,
    weighting: "Weighting",
    times: Tensor,
    eps: Tensor,
) -> Tensor:
    """w(t) |eps - eps_hat|^2 `[b]`, summed over dimensions, of data `x` and noise `eps` `[b, ...]` at `times` `[b]`.

    x_t reaches the network in the type of `x`; everything else is computed in float32 at least, whatever type the
    prediction comes in. Importance weights of the times are the caller's to multiply with.
    """
    times = times.to(x.device)
    at, wide = path.at(times), torch.promote_types(x.dtype, torch.float32)
    data, noise = x.to(wide), eps.to(wide)
    x_t = append_dims(at.alpha, data) * data + append_dims(at.sigma, data) * noise
    error = predict(x_t.to(x.dtype), times).to(wide) - target.of(data, noise, at)
    squared = error.square().flatten(1).sum(1)
    return weighting.of_target(at, target).to(squared) * squared


# --- weightings ----------------------------------------------------------------------------------------------


class Weighting(Configurable, ABC):
    """Which noise levels matter how much."""

    @abstractmethod
    def of_noise(self, path: Coefficients, target: Target) -> Tensor:
        """w, the weight of |eps - eps_hat|^2, shaped like the path's coefficients, where `target` is predicted."""

    def of_target(self, path: Coefficients, target: Target) -> Tensor:
        """The weight of |y - y_hat|^2 that stands for w: w (alpha / det)^2."""
        return self.of_noise(path, target) * (path.alpha / _det(path, target)) ** 2


@dataclass(frozen=True)
class SimpleNoise(Weighting):
    """w = 1: DDPM's simple loss, whatever is predicted (Ho et al. 2020, equation 14)."""

    @override
    def of_noise(self, path: Coefficients, target: Target) -> Tensor:
        return torch.ones_like(path.alpha)


@dataclass(frozen=True)
class TargetWeighting(Weighting):
    """|y - y_hat|^2 as it is: flow matching with the velocity, EDM with its F, DDPM with the noise."""

    @override
    def of_noise(self, path: Coefficients, target: Target) -> Tensor:
        return (_det(path, target) / path.alpha) ** 2

    def of_target(self, path: Coefficients, target: Target) -> Tensor:
        """1, also where alpha is 0 and the general formula is 0 times infinity."""
        return torch.ones_like(path.alpha)


@dataclass(frozen=True)
class MinSNR(Weighting):
    """min(SNR, gamma) |x - x_hat|^2 with SNR = alpha^2 / sigma^2 (Hang et al. 2023)."""

    gamma: float = 5.0
    """Where the weight of clean images stops rising."""

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise GenzooError(f"MinSNR needs gamma > 0, got {self.gamma}")

    @override
    def of_noise(self, path: Coefficients, target: Target) -> Tensor:
        return (self.gamma * (path.sigma / path.alpha) ** 2).clamp(max=1)


@dataclass(frozen=True)
class EDMWeighting(Weighting):
    """(s^2 + sigma_data^2) / (s sigma_data)^2 |x - x_hat|^2 with s = sigma / alpha (Karras et al. 2022, table 1).

    The same as `TargetWeighting` where EDM's F with this `sigma_data` is predicted.
    """

    sigma_data: float = 0.5
    """Standard deviation of the data."""

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
            raise GenzooError(f"EDMWeighting needs sigma_data > 0, got {self.sigma_data}")

    def of_noise(self, path: Coefficients, target: Target) -> Tensor:
        """1 + (s / sigma_data)^2."""
        return 1 + (path.sigma / (path.alpha * self.sigma_data)) ** 2


@dataclass(frozen=True)
class ELBOWeighting(Weighting):
    """-1/2 d log_snr / dt: the diffusion term of the variational bound (Kingma et al. 2021, section 5).

    It grows like 1 / t where sigma(0) = 0: ask from a first time above 0 and add a decoder's term there.
    """

    def of_noise(self, path: Coefficients, target: Target) -> Tensor:
        """sigma' / sigma - alpha' / alpha."""
        return path.d_sigma / path.sigma - path.d_alpha / path.alpha


@dataclass(frozen=True)
class SigmoidWeighting(Weighting):
    """sigmoid(shift - log_snr) times the bound's weight (Kingma & Gao 2023).

    Monotone in t: the bound of noised data. As a weight of the log-SNR it means the same for every path.
    """

    shift: float = 2.0
    """The log-SNR at which the weight is half of the bound's."""

    @override
    def of_noise(self, path: Coefficients, target: Target) -> Tensor:
        log_snr = 2 * (path.alpha.log() - path.sigma.log())
        return torch.sigmoid(self.shift - log_snr) * ELBOWeighting().of_noise(path, target)


def _det(path: Coefficients, target: Target) -> Tensor:
    """alpha b - sigma a."""
    a, b = target.coefficients(path)
    return path.alpha * b - path.sigma * a
