"""What every solver is, and the few formulas that they share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.objectives.denoising.paths import Coefficients, Denoiser, GaussianPath, Prediction

CLEAN = 1e-6
"""sigma / alpha up to which a time counts as free of noise: the rounding of a path's square root, no more."""


class Sampler(Configurable, ABC):
    """A rule that follows the reverse process from one time of a grid to the next."""

    @abstractmethod
    def run(
        self,
        denoise: Denoiser,
        path: GaussianPath,
        times: Tensor,
        x: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """x `[b, ...]` at times[-1] from `x` `[b, ...]` at times[0]; `times` float64 `[n + 1]`, strictly monotone.

        Times usually descend; solvers that draw no noise also take ascending ones (see `invert`). The network is
        asked at times[-1] by none of them if sigma is 0 there. Raises `GenzooError` where the times do not do.
        """

    def calls(self, steps: int) -> int | None:
        """The most network calls that `steps` steps take; None where a tolerance decides."""
        return steps


def steps_of(times: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of neighbouring times, float64 scalars on the processor: they multiply data of any type and device."""
    times = times.detach().double().cpu()
    steps = times.diff() if times.ndim == 1 else times.new_zeros(1)
    if len(steps) == 0 or not ((steps < 0).all() or (steps > 0).all()):
        raise GenzooError("times must be one row of at least two, strictly descending (or ascending)")
    return pairwise(times)


def descending_steps_of(times: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps_of` for samplers that add noise, which have no way back."""
    if times.ndim == 1 and len(times) > 1 and times[0] < times[-1]:
        raise GenzooError("a sampler that adds noise runs only from noise to data: give it descending times")
    return steps_of(times)


def predict_at(denoise: Denoiser, x: Tensor, t: Tensor) -> Prediction:
    """What the network sees in `x` `[b, ...]` at time `t` `[]`, which it gets as float64 `[b]`."""
    return denoise(x, t.to(x.device).expand(len(x)))


def is_clean(at: Coefficients) -> bool:
    """Whether sigma is 0 there but for rounding."""
    return bool(at.sigma <= CLEAN * at.alpha)


def signal_ratio(at_t: Coefficients, at_s: Coefficients) -> Tensor:
    """alpha_t sigma_s / (alpha_s sigma_t), from 0 (x_t tells nothing of x_s but x^) to 1 (a step of no length)."""
    return at_t.alpha * at_s.sigma / (at_s.alpha * at_t.sigma)


def ddim_step(prediction: Prediction, at_s: Coefficients) -> Tensor:
    """x_s `[b, ...]` of the data and noise seen in x_t, for any t (Song, Meng & Ermon 2021, equation 13)."""
    return at_s.alpha * prediction.x0 + at_s.sigma * prediction.eps
