"""Encoders of images, and the heads that contrastive objectives look at them through.

A backbone maps images `[b, c, h, w]` in [-1, 1] to vectors `[b, width]`: the representation. A projection maps these to
the embeddings `[b, out]` that an objective sees; it is thrown away afterwards (Chen et al. 2020, SimCLR, section 4.2:
the layer before it keeps what the objective makes its output forget). Both give float32, under autocast too.

Convolutions go without normalisation layers (see `genzoo.nn.resnet`); so each image's vector is its own business
and a batch of one is no special case. Objectives that want batch statistics find them in the projection.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.bounds import Depth, OptionalDepth, Width
from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.nn.attention import Attention
from genzoo.nn.layers import zeroed
from genzoo.nn.patch_transformer import waves
from genzoo.nn.resnet import ConvEncoder
from genzoo.nn.unet import image_shape, padded_to

SMALL_SIDE = 16
"""Images with no side longer than this are cut into patches of half the size."""


class Backbone(nn.Module, ABC):
    """Images to vectors."""

    width: int
    """Numbers in a vector."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Floats `[b, c, h, w]` in [-1, 1] to float32 `[b, width]`; the size need not be that it was built for."""


class BackboneConfig(Configurable, ABC):
    """Base of every backbone's configuration: a frozen dataclass."""

    @abstractmethod
    def build(self, shape: tuple[int, ...]) -> Backbone:
        """Random weights for images of `shape` (channels, height, width); raises `GenzooError` for other data."""


# --- convolutions ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResNetConfig(BackboneConfig):
    """A residual network that halves the image at once and once per width; about 1.4 million weights by default."""

    channels: tuple[Width, ...] = (64, 128, 256)
    """Channels at a half, a quarter, an eighth ... of the resolution; the last is the vector's width."""
    blocks: OptionalDepth = 1
    """Residual blocks per resolution."""
    narrowing: Depth = 2
    """The width of a stage over that inside of its blocks."""

    def build(self, shape: tuple[int, ...]) -> Backbone:
        """As `BackboneConfig.build`; raises `GenzooError` where a field cannot be."""
        if not self.channels or min(*self.channels, self.blocks + 1, self.narrowing) < 1:
            raise GenzooError(
                f"a ResNet needs channels and narrowing of at least 1, blocks of at least 0: {self}"
            )
        return ResNet(self, image_shape(shape, "a ResNet"))


class ResNet(Backbone):
    """Stages of `ConvEncoder`, then the mean over places of what is positive."""

    def __init__(self, config: ResNetConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.width = config.channels[-1]
        self.stages = ConvEncoder(shape[0], config.channels, config.blocks, narrowing=config.narrowing)

    def forward(self, x: Tensor) -> Tensor:
        """As `Backbone.forward`, of any size."""
        return F.relu(self.stages(x)).mean((2, 3), dtype=torch.float32)


# --- patches ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ViTConfig(BackboneConfig):
    """A vision transformer (Dosovitskiy et al. 2021) of about 1.2 million weights by default."""

    patch: Width = 4
    """Side in pixels of the squares that become tokens; half as much where no side is longer than 16 pixels."""
    width: Width = 128
    """Features of a token, and of the vector."""
    blocks: OptionalDepth = 6
    """Blocks of attention and perceptron."""
    head_width: Width = 64
    """Features of an attention head, at least."""
    expansion: Depth = 4
    """Hidden width of the perceptrons as a multiple of `width`."""
    class_token: bool = False
    """The vector is an extra token of its own rather than the mean of all patches."""

    def build(self, shape: tuple[int, ...]) -> "ViT":
        """As `BackboneConfig.build`; raises `GenzooError` where a field cannot be."""
        if min(self.patch, self.width, self.head_width, self.expansion, self.blocks + 1) < 1:
            raise GenzooError(f"a ViT's sizes must be at least 1 and its blocks at least 0: {self}")
        return ViT(self, image_shape(shape, "a ViT"))


class ViT(Backbone):
    """Patches to tokens with learned places, blocks, a last norm; sides that `patch` does not divide are padded.

    Of an image of another size than that it was built for, places are interpolated.
    """

    def __init__(self, config: ViTConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        self.width = config.width
        self.patch = config.patch if max(height, width) > SMALL_SIDE else -(-config.patch // 2)
        self.grid = (-(-height // self.patch), -(-width // self.patch))
        self.enter = nn.Linear(channels * self.patch**2, self.width)
        self.place = nn.Parameter(waves(self.grid, self.width))
        self.summary = nn.Parameter(0.02 * torch.randn(1, 1, self.width)) if config.class_token else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, x: Tensor) -> Tensor:
        """As `Backbone.forward`: the class token, or the mean of the tokens."""
        tokens = self._run(x, None)
        return tokens.mean(1) if self.summary is None else tokens[:, 0]

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Float32 `[b, k, width]` of the patches `keep` (long `[b, k]`) in their order, by default of all of them.

        Patches are numbered row by row; those left out are not looked at. The class token is not among them.
        """
        tokens = self._run(x, keep)
        return tokens if self.summary is None else tokens[:, 1:]

    def patches(self, x: Tensor) -> Tensor:
        """Images `[b, c, h, w]` as `[b, patches, c * patch^2]`, row by row; padding is zeros, below and right."""
        return F.pixel_unshuffle(padded_to(x, self.patch), self.patch).flatten(2).mT

    def _run(self, x: Tensor, keep: Tensor | None) -> Tensor:
        patches, place = self.patches(x), self._places(x)[None]
        if keep is not None:
            image = torch.arange(len(x), device=x.device)[:, None]
            patches, place = patches[image, keep], place[0, keep]
        tokens = self.enter(patches) + place
        if self.summary is not None:
            tokens = torch.cat([self.summary.expand(len(x), -1, -1).to(tokens.dtype), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens.float()).float()

    def _places(self, x: Tensor) -> Tensor:
        grid = -(-x.shape[2] // self.patch), -(-x.shape[3] // self.patch)
        if grid == self.grid:
            return self.place
        learned = self.place.mT.unflatten(1, self.grid)[None]
        return F.interpolate(learned, grid, mode="bilinear", antialias=True).flatten(2)[0].mT


class Block(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)), both branches zero at the start."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, config.head_width, zero=True, fused=False)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.expansion * width),
            nn.SiLU(),
            zeroed(nn.Linear(config.expansion * width, width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `[b, t, width]` to the same."""
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp(self.norm_mlp(x))


# --- the head --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProjectionConfig(Configurable):
    """A perceptron between the representation and the objective.

    SimCLR has two layers, Barlow Twins and VICReg three wide ones with batch normalisation between.
    """

    hidden: Width = 512
    """Width between the layers."""
    out: Width = 128
    """Numbers in an embedding."""
    layers: OptionalDepth = 2
    """Linear layers; with one `hidden` does not matter."""
    batch_norm: bool = False
    """Batch normalisation before each rectifier: an image's embedding then depends on its batch in training."""

    def build(self, width: int) -> "Projection":
        """`[b, width]` to float32 `[b, out]`; raises `GenzooError` where a field cannot be."""
        if min(self.hidden, self.out, self.layers) < 1:
            raise GenzooError(f"a projection's hidden, out and layers must be at least 1: {self}")
        return Projection(self, width)


class Projection(nn.Module):
    """Linear layers with rectifiers between, and batch normalisation before these if asked for."""

    def __init__(self, config: ProjectionConfig, width: int) -> None:
        super().__init__()
        self.batch_norm = config.batch_norm and config.layers > 1
        sizes = [width, *[config.hidden] * (config.layers - 1), config.out]
        layers: list[nn.Module] = []
        for n, (a, b) in enumerate(pairwise(sizes)):
            hidden = n < config.layers - 1
            layers += [
                nn.Linear(a, b, bias=not (hidden and config.batch_norm))
            ]  # the norm has a bias of its own
            layers += [nn.BatchNorm1d(b)] if hidden and config.batch_norm else []
            layers += [nn.ReLU()] if hidden else []
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """`[b, width]` to float32 `[b, out]`; raises `GenzooError` for one image in training with batch norm."""
        if self.batch_norm and self.training and len(x) < 2:
            raise GenzooError("batch normalisation needs at least two images per batch: raise batch_size")
        return self.layers(x).float()
