"""Dequantisation: integers 0 .. levels-1 become real numbers, so that densities can bound probabilities.

The bins of all levels tile [-1, 1] without gaps: level k is [2k / levels - 1, 2(k + 1) / levels - 1], with its
centre at 2 (k + 1/2) / levels - 1. A model of discrete images is what a density p leaves in each bin, and

    log P(k) = log int_bin p(x) dx >= E_q(x|k)[log p(x) - log q(x|k)]

for any q within the bin (Theis et al. 2016; Ho et al. 2019, Flow++, equation 12). As q is a density of the x in
[-1, 1], the scale's log-determinant, D log(levels / 2), is inside log q and cannot be forgotten.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self

from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.objectives.denoising.paths import GaussianPath

FLOAT32_STEP = 2.0**-24
"""The largest gap between float32 numbers in [-1, 1]."""


def margin(levels: int) -> float:
    """How far from a bin's ends, as a share of its width 2 / `levels`, x stays: rounded to float32 it is still inside.

    Four times what the rounding of x needs, as others add 1 to it in float32; so little probability lies there that
    q needs no correction.

    >>> margin(256) == 2.0**-16
    True
    """
    return levels * FLOAT32_STEP


def bin_centres(images: Tensor, levels: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Integers `[n, ...]` as the centres of their bins in [-1, 1]: what a diffusion model takes for x.

    >>> bin_centres(torch.tensor([0, 1]), levels=2)
    tensor([-0.5000,  0.5000], dtype=torch.float64)
    """
    return ((2 * images.to(torch.float64) + 1) / levels - 1).to(dtype)


def quantise(x: Tensor, levels: int) -> Tensor:
    """The level (long) whose bin `x` `[n, ...]` lies in, the first or last one outside of [-1, 1]."""
    return ((x.double() + 1) * (levels / 2)).floor().clamp(0, levels - 1).long()


class Dequantisation(Configurable, ABC):
    """q(x|k): a distribution within the bin of each sub-pixel."""

    @abstractmethod
    def draw(self, images: Tensor, levels: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """x in [-1, 1] and log q(x|k) in nats, summed over sub-pixels.

        Integers `[n, ...]` to float64 `[n, ...]` and `[n]`; log P(k) >= E[log p(x) - log q(x|k)].
        """


@dataclass(frozen=True)
class UniformDequantisation(Dequantisation):
    """x = 2 (k + u) / levels - 1 with u ~ U(0, 1) (Uria et al. 2013; Theis et al. 2016)."""

    def draw(self, images: Tensor, levels: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """log q is D log(levels / 2), whatever the draw."""
        u = _uniform(images, levels, generator)
        log_q = torch.full_like(u.flatten(1)[:, 0], images.shape[1:].numel() * math.log(levels / 2))
        return 2 * (images.to(u.dtype) + u) / levels - 1, log_q


@dataclass(frozen=True)
class TruncatedNormalDequantisation(Dequantisation):
    """x = centre + sigma eps, with eps a standard normal cut off where the bin ends: |eps| < tau = 1 / (levels sigma).

    Zheng et al. 2023, "Improved Techniques for Maximum Likelihood Estimation for Diffusion ODEs", section 4.1.
    With sigma = sigma(t) / alpha(t) at the ODE's first time this is the noise that the network has seen in
    training, but for the cut; the narrower it is, the looser the bound.
    """

    sigma: float
    """Standard deviation before the cut, where the image's range is 2."""

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise GenzooError(f"the sigma of a truncated normal must be positive, got {self.sigma}")

    @classmethod
    def at(cls, path: GaussianPath, t_min: float) -> Self:
        """The one that goes with an ODE that starts at time `t_min` of `path`."""
        alpha, sigma, _, _ = path.at(torch.tensor(t_min, dtype=torch.float64))
        return cls((sigma / alpha).item())

    def draw(self, images: Tensor, levels: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """By inversion: eps = sqrt(2) erfinv((2u - 1) Z) with Z = erf(tau / sqrt(2)), the normal's mass in the bin."""
        tau = 1 / (levels * self.sigma)
        mass = math.erf(tau / math.sqrt(2))
        u, inside = _uniform(images, levels, generator), 1 - 2 * margin(levels)
        eps = math.sqrt(2) * torch.special.erfinv((2 * u - 1) * mass)
        eps = eps.clamp(-tau * inside, tau * inside)
        log_q = -0.5 * eps**2 - 0.5 * math.log(2 * math.pi) - math.log(mass * self.sigma)
        return bin_centres(images, levels) + self.sigma * eps, log_q.flatten(1).sum(1)


def _uniform(images: Tensor, levels: int, generator: torch.Generator | None) -> Tensor:
    """One number within (0, 1) per sub-pixel, float64, drawn on the generator's device."""
    device = images.device if generator is None else generator.device
    u = torch.rand(images.shape, generator=generator, dtype=torch.float64, device=device)
    return u.clamp(margin(levels), 1 - margin(levels)).to(images.device)
