"""Noise-level conditioning (c_noise): a number that rises with the noise, 0 .. 1000 on any path."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from genzoo.core.config import Configurable
from genzoo.objectives.denoising.paths import GaussianPath


class NoiseConditioning(Configurable, ABC):
    """Maps the times of a path to `c_noise`, the noise level that the network sees."""

    @abstractmethod
    def __call__(self, path: GaussianPath, t: Tensor) -> Tensor:
        """Float64 `[b]` of times `t` float64 `[b]`."""


@dataclass(frozen=True)
class TimeConditioning(NoiseConditioning):
    """scale t + offset: 1000 t is flow matching's, T t - 1 the number of DDPM's step."""

    scale: float = 1000.0
    offset: float = 0.0

    def __call__(self, path: GaussianPath, t: Tensor) -> Tensor:
        """The path plays no part."""
        return self.scale * t + self.offset


@dataclass(frozen=True)
class LogSNRConditioning(NoiseConditioning):
    """Even in the log-SNR: the same noise reads the same on every path, and small noise can be told apart."""

    low: float = -15.0
    """Log-SNR that reads 1000; what is below reads so too."""
    high: float = 15.0
    """Log-SNR that reads 0; what is above reads so too."""

    def __call__(self, path: GaussianPath, t: Tensor) -> Tensor:
        """Clamped, as log-SNRs may be infinite."""
        return 1000 * (self.high - path.log_snr(t).clamp(self.low, self.high)) / (self.high - self.low)
