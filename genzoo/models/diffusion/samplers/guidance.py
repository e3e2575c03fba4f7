"""Guidance: two networks' predictions extrapolated, as one network that any sampler takes."""

import torch
from torch import Tensor

from genzoo.objectives.denoising.paths import Denoiser, Prediction, append_dims


def guided(
    conditional: Denoiser,
    unconditional: Denoiser,
    scale: float,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Denoiser:
    """eps^ = eps_u + scale (eps_c - eps_u) at times within `interval`, eps_c alone outside.

    Classifier-free guidance (Ho & Salimans 2022, equation 6, whose w is scale - 1) within an interval (Kynkaanniemi
    et al. 2024, in time here); with a weaker model as `unconditional`, autoguidance (Karras et al. 2024). x^ is
    extrapolated alike, so that x_t = alpha x^ + sigma eps^ stays true on whatever path. `unconditional` is called
    only where it counts: never if `scale` is 1.
    """
    low, high = interval

    def denoise(x_t: Tensor, t: Tensor) -> Prediction:
        """x_t `[b, ...]` at times `[b]`: equation 6 where the time is within the interval."""
        with_cond = conditional(x_t, t)
        inside = (t >= low) & (t <= high)
        if scale == 1.0 or not inside.any():
            return with_cond
        without = unconditional(x_t, t)
        weight = append_dims(torch.where(inside, scale - 1.0, 0.0), x_t)
        return Prediction(*(c + weight * (c - u) for c, u in zip(with_cond, without, strict=True)))

    return denoise
