"""The plain loop that cached sampling is measured against: the whole network once per pixel."""

import torch
from torch import Tensor

from genzoo.core.trainable import evaluating
from genzoo.models.autoregressive.pixel_models import AutoregressiveModel


def sample_plainly(
    model: AutoregressiveModel, n: int, *, generator: torch.Generator | None = None, pixels: int | None = None
) -> Tensor:
    """What `model.sample(n, generator=generator)` draws, `[n, c, h, w]`, without any cache.

    `pixels` ends the loop after so many sub-pixels: to time a share of it.
    """
    channels, height, width = model.spec.shape
    images = torch.zeros(n, *model.spec.shape, dtype=torch.long)
    order = [(c, i, j) for i in range(height) for j in range(width) for c in range(channels)]
    with evaluating(model):
        for c, i, j in order[:pixels]:
            x = model.features(model.groups.fold(images)).flatten(-2)
            params = model.head(model.backbone(x, None), x)
            column, pixel = divmod(j, model.groups.size)
            subpixel = pixel * channels + c
            images[:, c, i, j] = model.distribution.sample(
                params[:, i, column, subpixel], generator=generator
            )
    return images.to(torch.uint8)
