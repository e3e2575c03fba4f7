"""DDPM's discrete noise schedules: how much of the data each of T steps replaces by noise.

q(x_i | x_{i-1}) = N(sqrt(1 - beta_i) x_{i-1}, beta_i),    i = 0 .. T-1      (Ho et al. 2020, equation 2)
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from genzoo.core.bounds import Many, NotNegative, Share
from genzoo.core.config import Configurable


class Betas(Configurable, ABC):
    """The variances beta_0 .. beta_{T-1} of DDPM's T noising steps (Ho et al. 2020, equation 2)."""

    @abstractmethod
    def values(self) -> Tensor:
        """Float64 `[T]`, each inside (0, 1), on the processor wherever networks are being built."""


@dataclass(frozen=True)
class LinearBetas(Betas):
    """Equally spaced (Ho et al. 2020, section 4; "linear" in diffusers)."""

    steps: Many = 1000
    """T."""
    start: Share = 1e-4
    """beta_0."""
    end: Share = 0.02
    """beta_{T-1}."""

    @override
    def values(self) -> Tensor:
        return torch.linspace(self.start, self.end, self.steps, dtype=torch.float64, device="cpu")


@dataclass(frozen=True)
class CosineBetas(Betas):
    """1 - f(i + 1) / f(i), f(i) = cos^2((i / T + s) / (1 + s) * pi / 2) ("squaredcos_cap_v2" in diffusers).

    Nichol & Dhariwal 2021, equation 17 and the clip below it.
    """

    steps: Many = 1000
    """T."""
    offset: NotNegative = 0.008
    """s."""
    largest: Share = 0.999
    """Where betas are clipped."""

    @override
    def values(self) -> Tensor:
        share = torch.arange(self.steps + 1, dtype=torch.float64, device="cpu") / self.steps
        kept = ((share + self.offset) / (1 + self.offset) * math.pi / 2).cos() ** 2
        return (1 - kept[1:] / kept[:-1]).clamp(max=self.largest)


@dataclass(frozen=True)
class GivenBetas(Betas):
    """Any others, number by number."""

    betas: tuple[float, ...]
    """beta_0 .. beta_{T-1}."""

    @override
    def values(self) -> Tensor:
        return torch.tensor(self.betas, dtype=torch.float64, device="cpu")
