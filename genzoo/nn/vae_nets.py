"""Encoder and decoder of a VAE with one latent vector per image."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from genzoo.nn.latent_priors import gaussian_parameters
from genzoo.nn.layers import zeroed
from genzoo.nn.resnet import ConvDecoder, ConvEncoder, halved


class Stages(NamedTuple):
    """The convolutional part: `blocks` residual blocks at each of the halved resolutions, of `channels` channels."""

    channels: tuple[int, ...]
    blocks: int
    cond_width: int = 0
    dropout: float = 0.0


class ScaledImages(nn.Module):
    """Integer images to features: levels 0 .. levels-1 evenly on [-1, 1], in the parameters' type."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.register_buffer("step", torch.tensor(2 / (levels - 1)), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Integers `[...]` to floats `[...]`."""
        return images.to(self.step.dtype) * self.step - 1  # pyright: ignore


class ImageEncoder(nn.Module):
    """Features `[b, c, h, w]` to mean and log-scale `[b, latent_dim]`, both 0 at the start."""

    def __init__(self, shape: tuple[int, ...], latent_dim: int, stages: Stages) -> None:
        super().__init__()
        channels, *size = shape
        self.body = ConvEncoder(channels, *stages)
        height, width = halved((size[0], size[1]), len(stages.channels))
        self.head = zeroed(
            nn.Linear(stages.channels[-1] * height * width + stages.cond_width, 2 * latent_dim)
        )

    def forward(self, features: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """`cond` is the embedded condition `[b, cond_width]` or None."""
        h = self.body(features, cond).flatten(1)
        return gaussian_parameters(self.head(h if cond is None else torch.cat([h, cond.to(h.dtype)], 1)))


class ImageDecoder(nn.Module):
    """Latents `[b, latent_dim]` to parameters `[b, *shape, n_params + shared]`, 0 at the start.

    The last `shared` parameters are learned numbers, the same for every sub-pixel of every image.
    """

    def __init__(
        self, shape: tuple[int, ...], latent_dim: int, n_params: int, stages: Stages, *, shared: int = 0
    ) -> None:
        super().__init__()
        channels, *size = shape
        self.size, self.channels, self.n_params = (size[0], size[1]), channels, n_params
        widths, blocks, cond_width, dropout = stages
        self.map = (widths[-1], *halved(self.size, len(widths)))
        self.first = nn.Linear(latent_dim + cond_width, self.map[0] * self.map[1] * self.map[2])
        self.body = ConvDecoder(self.size, widths, blocks, channels * n_params, cond_width, dropout)
        self.shared = nn.Parameter(torch.zeros(shared)) if shared else None

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        """`cond` is the embedded condition `[b, cond_width]` or None."""
        h = self.first(z if cond is None else torch.cat([z, cond.to(z.dtype)], 1))
        params = self.body(h.view(len(z), *self.map), cond)  # [b, c * p, h, w]
        params = params.view(len(z), self.channels, self.n_params, *self.size).movedim(2, -1)
        if self.shared is None:
            return params
        return torch.cat([params, self.shared.to(params.dtype).expand(*params.shape[:-1], -1)], -1)
