"""The likelihood of "a generator plus observation noise", for generators that have none of their own.

    P(x) = int P(x | G(z)) p(z) dz,    P(x | G(z)) discretised Gaussians of one scale around the generator's image

by annealed importance sampling (Wu et al. 2017, "On the Quantitative Analysis of Decoder-Based Generative Models"),
with its gap measured on simulated data. What is evaluated is the generator *plus noise*: the scale is part of the model
and must be chosen on other images (`choose_scale`), and the figure is not to be ranked beside those of models that were
trained for likelihood.
"""

import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LogLikelihood
from genzoo.core.spec import DataSpec
from genzoo.core.surroundings import in_plain_surroundings
from genzoo.objectives.elbo import LOG_2PI
from genzoo.objectives.likelihood.annealing import (
    HMC,
    AnnealingPath,
    annealed_importance_sampling,
    bidirectional_monte_carlo,
)
from genzoo.objectives.pixels import DiscretisedGaussian


@typing.runtime_checkable
class Decoder(typing.Protocol):
    """A generator of images from z ~ N(0, 1)."""

    spec: DataSpec
    latent_dim: int
    """Numbers in z."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        ...

    def generate(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """Latents `[b, latent_dim]` to images `[b, *spec.shape]` on the scale of bin centres, differentiable."""
        ...


@dataclass(frozen=True)
class Annealing:
    """How many chains, through how many temperatures, by which transitions."""

    chains: int = 16
    steps: int = 500
    hmc: HMC = field(default_factory=HMC)


@in_plain_surroundings
def decoder_likelihood(
    model: Decoder,
    images: Tensor,
    scale: float,
    cond: Tensor | None = None,
    *,
    annealing: Annealing | None = None,
    simulated: int = 16,
    generator: torch.Generator | None = None,
) -> LogLikelihood:
    """log P(images | cond) `[n]` of the generator plus noise of standard deviation `scale` (the images' range is 2).

    A stochastic lower bound. `details` hold the scale and `bdmc_gap`, in nats on as many as `simulated` images drawn
    from the generator plus noise itself (0: not measured). Real-valued data get a density. Raises `GenzooError` for a
    scale that is not positive.
    """
    if not scale > 0:
        raise GenzooError(f"the scale of the observation noise must be positive, got {scale}")
    annealing = annealing or Annealing()
    observed = _Observed(model, scale, cond)
    evidence = annealed_importance_sampling(
        observed.path(images.to(model.device)),
        chains=annealing.chains, steps=annealing.steps, hmc=annealing.hmc, generator=generator,
    )  # fmt: skip
    details = {**evidence.details, "model": "generator plus observation noise", "scale": scale}
    if simulated:
        details["bdmc_gap"] = _gap(observed, min(simulated, len(images)), annealing, generator)
    return replace(evidence, details=details).as_log_likelihood(model.spec)


@in_plain_surroundings
def choose_scale(
    model: Decoder,
    images: Tensor,
    cond: Tensor | None = None,
    *,
    scales: Sequence[float] = (0.05, 0.1, 0.15, 0.2, 0.3),
    annealing: Annealing | None = None,
    generator: torch.Generator | None = None,
) -> float:
    """The one of `scales` under which validation `images` are likeliest."""
    found = {
        scale: decoder_likelihood(
            model, images, scale, cond, annealing=annealing, simulated=0, generator=generator
        ).nats.mean()
        for scale in scales
    }
    return max(found, key=lambda scale: found[scale].item())


@dataclass(frozen=True)
class _Observed:
    """A generator and its noise."""

    model: Decoder
    scale: float
    cond: Tensor | None

    def path(self, images: Tensor) -> AnnealingPath:
        """From the prior to p(x, z) of `images` `[b, ...]`; latents come as `[k, b, d]`."""
        shape = (len(images), self.model.latent_dim)

        def draw(k: int, generator: torch.Generator | None) -> Tensor:
            device = self.model.device if generator is None else generator.device
            return torch.randn(k, *shape, generator=generator, device=device).to(self.model.device)

        return AnnealingPath.from_prior(
            _log_normal, lambda z: self.log_prob(images, z.flatten(0, 1)).view(z.shape[:2]), draw
        )

    def log_prob(self, images: Tensor, z: Tensor) -> Tensor:
        """log P(x | G(z)) `[k * b]` of `images` `[b, ...]` under latents `[k * b, d]`."""
        times = len(z) // len(images)
        cond = None if self.cond is None else self.cond.repeat(times, *[1] * (self.cond.ndim - 1))
        mean, levels = self.model.generate(z, cond), self.model.spec.levels
        repeated = images.repeat(times, *[1] * (images.ndim - 1))
        if levels is None:
            offset = (repeated - mean) / self.scale
            each = -0.5 * offset**2 - math.log(self.scale) - 0.5 * LOG_2PI
        else:
            each = self._noise(levels).log_prob((mean * _stretch(levels))[..., None], repeated.long())
        return each.flatten(1).sum(1)

    def simulate(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Latents `[n, d]` and images drawn given them."""
        z = self.path(torch.zeros(n, *self.model.spec.shape)).sample_start(1, generator)[0]
        mean, levels = (
            self.model.generate(z, None if self.cond is None else self.cond[:n]),
            self.model.spec.levels,
        )
        if levels is None:
            noise = torch.randn(mean.shape, generator=generator).to(mean)
            return z, mean + self.scale * noise
        drawn = self._noise(levels).sample((mean * _stretch(levels))[..., None], generator=generator)
        return z, drawn

    def _noise(self, levels: int) -> DiscretisedGaussian:
        return DiscretisedGaussian(levels, scale=self.scale)


def _gap(observed: _Observed, n: int, annealing: Annealing, generator: torch.Generator | None) -> float:
    with torch.no_grad():
        z, images = observed.simulate(n, generator)
    few = replace(observed, cond=None if observed.cond is None else observed.cond[:n])
    return bidirectional_monte_carlo(
        few.path(images), z,
        chains=annealing.chains, steps=annealing.steps, hmc=annealing.hmc, generator=generator,
    ).gap  # fmt: skip


def _stretch(levels: int) -> float:
    """From bin centres, which leave half a bin at either end, to `DiscretisedGaussian`'s levels from -1 to 1."""
    return levels / (levels - 1)


def _log_normal(z: Tensor) -> Tensor:
    return (-0.5 * z**2 - 0.5 * LOG_2PI).sum(-1)
