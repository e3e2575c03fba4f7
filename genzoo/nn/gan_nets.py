"""Generators and discriminators: residual, without normalisation, for images and for vectors.

In the manner of R3GAN (Huang et al. 2024): residual branches start at zero and stand in for what normalisation and
tricks did; classes enter the discriminator by projection (Miyato & Koyama 2018). For losses that need a critic of
bounded slope, the discriminator's layers can be divided by their largest singular value (Miyato et al. 2018).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from typing_extensions import override

from genzoo.core.bounds import NotNegative, OptionalDepth, Width
from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.nn.layers import zeroed
from genzoo.nn.resnet import ConvDecoder, ConvEncoder, halved


class GANNetworks(Configurable, ABC):
    """Base of the configurations of both players' networks."""

    @abstractmethod
    def generator(self, shape: tuple[int, ...], latent_dim: int, cond_width: int) -> nn.Module:
        """A module `(z [b, latent_dim], cond [b, cond_width] | None) -> [b, *shape]`."""

    @abstractmethod
    def discriminator(self, shape: tuple[int, ...], cond_width: int) -> nn.Module:
        """A module `(x [b, *shape], cond [b, cond_width] | None) -> logits [b]`."""


@dataclass(frozen=True)
class ConvGANNetworks(GANNetworks):
    """Residual convolutions at a half, a quarter ... of the resolution."""

    channels: tuple[Width, ...] = (64, 128)
    """Channels per resolution, the first at half of the image's."""
    blocks: OptionalDepth = 2
    """Residual blocks per resolution, in each network."""
    fine: Width = 16
    """Channels of the generator at full resolution, which smooth what a pixel shuffle leaves; 0: none."""
    spectral: bool = False
    """Spectral normalisation of the discriminator."""

    def generator(self, shape: tuple[int, ...], latent_dim: int, cond_width: int) -> nn.Module:
        """Sides of any length are halved by rounding up."""
        return ConvGenerator(_image_shape(shape), latent_dim, cond_width, self)

    @override
    def discriminator(self, shape: tuple[int, ...], cond_width: int) -> nn.Module:
        return _spectral(ConvDiscriminator(_image_shape(shape), cond_width, self), self.spectral)


@dataclass(frozen=True)
class DenseGANNetworks(GANNetworks):
    """Residual perceptrons, for vectors and small images."""

    width: Width = 256
    """Of the hidden layers."""
    blocks: OptionalDepth = 3
    """Residual blocks in each network."""
    discriminator_blocks: OptionalDepth | None = None
    """Those of the discriminator, where they are not as many."""
    waves: NotNegative = 0.0
    """Standard deviation of the frequencies of sines that the discriminator also sees, in radians per unit of data
    (about the reciprocal of the detail that it is to see at the start); 0: none. For data of few numbers."""
    spectral: bool = False
    """Spectral normalisation of the discriminator."""

    def generator(self, shape: tuple[int, ...], latent_dim: int, cond_width: int) -> nn.Module:
        """Data of any shape, as one vector."""
        return DenseGenerator(shape, latent_dim, cond_width, self)

    @override
    def discriminator(self, shape: tuple[int, ...], cond_width: int) -> nn.Module:
        return _spectral(DenseDiscriminator(math.prod(shape), cond_width, self), self.spectral)


def he_started(network: nn.Module) -> None:
    """Weights of He et al. 2015 (equation 14), except for those that start at zero.

    Torch's own start lets signals shrink by the square root of 3 a layer, and without normalisation nothing makes up
    for that: a discriminator so started is blind to the modes of a mixture for its first hundreds of steps.
    """
    for layer in network.modules():
        if (
            isinstance(layer, (nn.Linear, nn.Conv2d))
            and not layer.weight.is_meta
            and bool(layer.weight.any())
        ):
            nn.init.kaiming_normal_(layer.weight, a=0.2)


class ConvGenerator(nn.Module):
    """`(z, cond)` to `[b, c, h, w]`, unbounded."""

    def __init__(
        self, shape: tuple[int, int, int], latent_dim: int, cond_width: int, config: ConvGANNetworks
    ) -> None:
        super().__init__()
        channels, *size = shape
        self.map = (config.channels[-1], *halved((size[0], size[1]), len(config.channels)))
        self.first = nn.Linear(latent_dim + cond_width, self.map[0] * self.map[1] * self.map[2])
        out = config.fine or channels
        self.body = ConvDecoder((size[0], size[1]), config.channels, config.blocks, out, cond_width)
        self.last = nn.Conv2d(out, channels, 3, padding=1) if config.fine else None
        he_started(self)
        self.body.up[0].reset_parameters()  # pyright: ignore # images that are all alike would teach nothing
        for layer in self.body.up:
            _even_start(layer)  # pyright: ignore

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        """`z` `[b, latent_dim]` and the embedded condition `[b, cond_width]` or None."""
        h = self.first(z if cond is None else torch.cat([z, cond.to(z.dtype)], 1))
        x = self.body(h.view(len(z), *self.map), cond)
        return x if self.last is None else self.last(F.leaky_relu(x, 0.2))


def _even_start(up: nn.Conv2d) -> None:
    """Lets a convolution before a pixel shuffle start with equal pixels in every block (Aitken et al. 2017, ICNR).

    Else a generator begins with a checkerboard, which is the first thing that gives it away.
    """
    with torch.no_grad():
        up.weight.copy_(up.weight[::4].repeat_interleave(4, 0))
        up.bias.copy_(up.bias[::4].repeat_interleave(4, 0))  # pyright: ignore


class ConvDiscriminator(nn.Module):
    """`(x, cond)` to logits `[b]`, 0 at the start."""

    def __init__(self, shape: tuple[int, int, int], cond_width: int, config: ConvGANNetworks) -> None:
        super().__init__()
        channels, *size = shape
        self.body = ConvEncoder(channels, config.channels, config.blocks)
        height, width = halved((size[0], size[1]), len(config.channels))
        features = config.channels[-1] * height * width
        self.hidden = nn.Linear(features, config.channels[-1])
        he_started(self)
        self.head = ProjectionHead(config.channels[-1], cond_width)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """`x` `[b, c, h, w]`."""
        h = F.leaky_relu(self.hidden(F.leaky_relu(self.body(x).flatten(1), 0.2)), 0.2)
        return self.head(h, cond)


class ProjectionHead(nn.Module):
    """w h + <V cond, h>: what speaks for an image, and for its condition (Miyato & Koyama 2018, equation 3)."""

    def __init__(self, features: int, cond_width: int) -> None:
        super().__init__()
        self.logit = zeroed(nn.Linear(features, 1))
        self.match = nn.Linear(cond_width, features, bias=False) if cond_width else None

    def forward(self, h: Tensor, cond: Tensor | None) -> Tensor:
        """Features `[b, features]` to logits `[b]` in float32."""
        logit = self.logit(h)[:, 0].float()
        if self.match is None:
            return logit
        return logit + (self.match(cond) * h).float().sum(1) / h.shape[1] ** 0.5


class DenseBlock(nn.Module):
    """x + linear(act(linear(act(x)))), the last layer zero at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, width), zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """`[b, width]` to the same."""
        return x + self.last(F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2))


class Waves(nn.Module):
    """A layer upon sqrt(2) sin(w x + b) of random, trained frequencies: detail that perceptrons learn late (Tancik et
    al. 2020)."""

    def __init__(self, size: int, width: int, std: float) -> None:
        super().__init__()
        self.phase, self.mix = nn.Linear(size, width), nn.Linear(width, width)
        he_started(self.mix)
        with torch.no_grad():
            self.phase.weight.normal_(0, std)
            self.phase.bias.uniform_(-math.pi, math.pi)

    def forward(self, x: Tensor) -> Tensor:
        """`[b, size]` to `[b, width]`."""
        return self.mix(math.sqrt(2) * self.phase(x).sin())


class DensePlayer(nn.Module):
    """`(x, cond)` to `[b, out]`."""

    def __init__(self, size: int, out: int, cond_width: int, config: DenseGANNetworks, blocks: int) -> None:
        super().__init__()
        self.first = nn.Linear(size + cond_width, config.width)
        self.blocks = nn.Sequential(*(DenseBlock(config.width) for _ in range(blocks)))
        self.last = nn.Linear(config.width, out)
        he_started(self)
        with torch.no_grad():  # the kinks of the first layer lie all over the data, and are sharp
            self.first.weight.mul_(2)
            self.first.bias.normal_(0, 1.5)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """Vectors `[b, size]`."""
        return self.continued(self.first(x if cond is None else torch.cat([x, cond.to(x.dtype)], 1)))

    def continued(self, h: Tensor) -> Tensor:
        """From what the first layer gives, `[b, width]`."""
        return self.last(F.leaky_relu(self.blocks(h), 0.2))


class DenseGenerator(nn.Module):
    """`(z, cond)` to `[b, *shape]`, unbounded."""

    def __init__(
        self, shape: tuple[int, ...], latent_dim: int, cond_width: int, config: DenseGANNetworks
    ) -> None:
        super().__init__()
        self.shape = shape
        self.body = DensePlayer(latent_dim, math.prod(shape), cond_width, config, config.blocks)

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        """`z` `[b, latent_dim]` and the embedded condition `[b, cond_width]` or None."""
        return self.body(z, cond).unflatten(1, self.shape)


class DenseDiscriminator(nn.Module):
    """`(x, cond)` to logits `[b]`."""

    def __init__(self, size: int, cond_width: int, config: DenseGANNetworks) -> None:
        super().__init__()
        blocks = config.blocks if config.discriminator_blocks is None else config.discriminator_blocks
        self.body = DensePlayer(size, config.width, 0, config, blocks)
        self.waves = Waves(size, config.width, config.waves) if config.waves else None
        self.head = ProjectionHead(config.width, cond_width)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """`x` `[b, ...]`."""
        x = x.flatten(1)
        h = self.body.first(x)
        h = h if self.waves is None else h + self.waves(x)
        return self.head(F.leaky_relu(self.body.continued(h), 0.2), cond)


def _spectral(network: nn.Module, wanted: bool) -> nn.Module:
    """`network`, with spectral normalisation where `wanted`; layers of zeros, which have no scale, start at random."""
    for layer in list(network.modules()) if wanted else ():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            if not bool(layer.weight.any()):
                layer.reset_parameters()
            spectral_norm(layer)
    return network


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise GenzooError(f"this GAN needs images, these data have shape {shape}: use DenseGANNetworks")
    return shape[0], shape[1], shape[2]
