"""Sampling that starts from images or is bound to them: inversion and imputation."""

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.models.diffusion.samplers.base_sampler import Sampler
from genzoo.objectives.denoising.paths import Denoiser, GaussianPath
from genzoo.objectives.elbo import normal_noise


def invert(sampler: Sampler, denoise: Denoiser, path: GaussianPath, times: Tensor, x: Tensor) -> Tensor:
    """The noise `[b, ...]` at times[0] from which the probability-flow ODE leads to data `x` `[b, ...]` at times[-1].

    DDIM inversion (Song, Meng & Ermon 2021, section 5.4) by any solver that draws no noise; `times` descend, as for
    sampling. The network is asked at times[-1]: where sigma is 0 there, it must predict noise, v or velocity, because
    the noise in clean data cannot be told from a prediction of the data. Raises `GenzooError` for samplers that draw.
    """
    return sampler.run(denoise, path, times.flip(0), x)


def impute(
    sampler: Sampler,
    denoise: Denoiser,
    path: GaussianPath,
    times: Tensor,
    images: Tensor,
    missing: Tensor,
    *,
    resamplings: int = 10,
    jump: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`images` with draws where `missing` is True: RePaint (Lugmayr et al. 2022, algorithm 1).

    `images` `[b, ...]` are in the network's units, their missing values are never read; `missing` is bool and
    broadcasts to them. After each step the known pixels are replaced by the images', noised to that time. Every
    `jump` steps are taken `resamplings` times, with noise added in between to get back to their start: 1 is plain
    replacement, whose draws know too little of the known pixels; the more, and the shorter the steps, the closer to
    the conditional distribution. Network calls are `resamplings` times those of sampling. `sampler` takes
    single steps, so a multistep one is of first order; `Ancestral()` is the paper's. `times` descend.
    """
    if resamplings < 1 or jump < 1:
        raise GenzooError(f"impute needs resamplings >= 1 and jump >= 1, got {resamplings} and {jump}")
    times = times.double().cpu()
    known = torch.where(missing, torch.zeros_like(images), images)
    x = path.mix(known, normal_noise(images, generator), times[0])
    for start in range(0, len(times) - 1, jump):
        block = times[start : start + jump + 1]
        for again in range(resamplings):
            x = x if again == 0 else _noised(path, x, block[-1], block[0], generator)
            for step in block.unfold(0, 2, 1):
                x = sampler.run(denoise, path, step, x, generator)
                x = torch.where(missing, x, path.mix(known, normal_noise(x, generator), step[-1]))
    return torch.where(missing, x, images)


def _noised(path: GaussianPath, x: Tensor, s: Tensor, t: Tensor, generator: torch.Generator | None) -> Tensor:
    """A draw from q(x_t | x_s) for t > s."""
    at_s, at_t = path.at(s), path.at(t)
    share = at_t.alpha / at_s.alpha
    scale = (at_t.sigma**2 - (share * at_s.sigma) ** 2).clamp_min(0).sqrt()
    return share * x + scale * normal_noise(x, generator)
