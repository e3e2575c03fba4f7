"""Gaussian and two-peaked data on every path: optimal denoisers and flows in closed form, for tests of samplers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from genzoo.models.diffusion.samplers.solvers import (
    DDIM,
    AdamsMoulton,
    Ancestral,
    Dopri5,
    DPMSolverPP2M,
    Euler,
    Heun,
)
from genzoo.models.diffusion.samplers.time_grids import KarrasGrid, LogSNRGrid, UniformGrid
from genzoo.objectives.denoising.paths import (
    VE,
    Linear,
    Prediction,
    SubVP,
    Trigonometric,
    VPCosine,
    VPLinear,
    append_dims,
)

PATHS = [VPLinear(), VPCosine(), Trigonometric(), SubVP(), Linear(), VE()]
FLOWS = [DDIM(), Euler(), Heun(), DPMSolverPP2M(), AdamsMoulton(), Dopri5()]
NOISY = [Ancestral(), Ancestral(upper=1.0), DDIM(eta=0.5), DDIM(eta=1.0)]
GRIDS = [UniformGrid(), KarrasGrid(), LogSNRGrid()]
F64 = torch.float64


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def at(path, t):
    return path.at(torch.as_tensor(t, dtype=F64))


def from_data(x_t, x, c):
    """Data and the noise that goes with them."""
    return Prediction(x, (x_t - append_dims(c.alpha, x) * x) / append_dims(c.sigma, x))


@dataclass
class Gaussian:
    """Independent N(mean, scale^2): the optimal denoiser, and the flow in closed form."""

    mean: Tensor
    scale: Tensor

    def denoiser(self, path):
        def denoise(x_t, t):
            alpha, sigma = (append_dims(c, x_t) for c in path.at(t)[:2])
            ratio = alpha * self.scale**2 / (alpha**2 * self.scale**2 + sigma**2)
            x = self.mean + ratio * (x_t - alpha * self.mean)
            eps = sigma / (alpha**2 * self.scale**2 + sigma**2) * (x_t - alpha * self.mean)
            return Prediction(x, eps)

        return denoise

    def flow(self, path, x, t, s):
        """The quantile of x_t stays: (x_t - alpha mean) / std(x_t) is constant."""
        (a, b), (c, d) = at(path, t)[:2], at(path, s)[:2]
        std_t, std_s = (((p * self.scale) ** 2 + q**2).sqrt() for p, q in ((a, b), (c, d)))
        return c * self.mean + std_s / std_t * (x - a * self.mean)


GAUSSIAN = Gaussian(torch.tensor([0.5, -1.0, 0.2], dtype=F64), torch.tensor([0.3, 0.7, 1.5], dtype=F64))


def two_modes(path, scale=0.3):
    """Optimal denoiser of an equal mixture of N(-1, scale^2) and N(1, scale^2) in each dimension."""

    def denoise(x_t, t):
        c = path.at(t)
        alpha, sigma = append_dims(c.alpha, x_t), append_dims(c.sigma, x_t)
        variance = (alpha * scale) ** 2 + sigma**2
        side = torch.tanh(alpha * x_t / variance)
        eps = sigma / variance * (x_t - alpha * side)
        return Prediction(side + alpha * scale**2 / variance * (x_t - alpha * side), eps)

    return denoise


@dataclass
class Recorder:
    """A denoiser that remembers what it was asked."""

    denoise: object

    def __post_init__(self):
        self.x, self.t = [], []

    def __call__(self, x_t, t):
        self.x.append(x_t)
        self.t.append(t)
        return self.denoise(x_t, t)
