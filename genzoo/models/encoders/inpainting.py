"""Encoders that learn by filling in what is hidden.

    masked autoencoding   a ViT sees a part of the patches, a small decoder tells the others      He et al. 2022, 3
    context encoder       another backbone sees the image with squares blanked out                Pathak et al. 2016

    loss   mean over hidden patches of the mean squared error of their pixels, each patch normalised by its own mean and
           standard deviation (He et al. 2022, "reconstruction target"); visible patches do not count

A constant guess of 0 has the loss 1 where patches are not of one colour. The decoder is thrown away: `embed` gives the
backbone's vectors of the whole image, with nothing hidden; a ViT's are means over parts of the image, side by side.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from genzoo.core.bounds import OptionalDepth, OptionalWidth, Share, Width
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec
from genzoo.core.trainable import Loss
from genzoo.data.augmentations import Augmentation
from genzoo.models.base import Encoder, EncoderConfig
from genzoo.models.encoders.embedding import check_discrete, embedded, prepared
from genzoo.nn.backbones import Backbone, BackboneConfig, Block, ViT, ViTConfig
from genzoo.nn.patch_transformer import waves
from genzoo.nn.resnet import ConvDecoder, halved
from genzoo.nn.unet import padded_to


@dataclass(frozen=True)
class InpaintingConfig(EncoderConfig):
    """What is hidden, who sees the rest, and how large the decoder is."""

    augmentation: Augmentation
    """Before anything is hidden; cropping is enough (He et al. 2022, table 1e)."""
    backbone: BackboneConfig = field(default_factory=ViTConfig)
    """Images to representations; what is hidden from a ViT are its own patches."""
    hidden_fraction: Share = 0.5
    """Share of the patches that are hidden. Three quarters of 196 are best in the paper (figure 5); small images have
    16 or 49, and nothing to tell the others by is left of them. Context encoders hide about a quarter."""
    square: Width = 4
    """Side in pixels of the squares that are hidden from a backbone that is no ViT."""
    regions: OptionalWidth = 2
    """Parts per side of the image whose means of a ViT's tokens make up the vector, side by side; with 1 it is the mean
    of all, as in the paper. No loss asks a single mean to tell what is where."""
    decoder_width: Width = 64
    """Features of the decoder: of a token, or of a pixel at half the resolution."""
    decoder_blocks: OptionalDepth = 2
    """Blocks of the decoder."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "Inpainting":
        """Raises `GenzooError` where the network does not take the data, or there is nothing to hide."""
        check_discrete(spec)
        if not 0 < self.hidden_fraction < 1 or min(self.square, self.regions, self.decoder_width) < 1:
            raise GenzooError(
                f"inpainting needs 0 < hidden_fraction < 1, and square, regions and decoder_width above 0: {self}"
            )
        if isinstance(self.backbone, ViTConfig):
            # an image of two pixels a side still has patches to hide
            backbone = replace(self.backbone, patch=min(self.backbone.patch, max(spec.shape[1:])))
            return Inpainting(spec, self, MaskedAutoencoder(self, backbone.build(spec.shape), spec.shape[0]))
        return Inpainting(spec, self, ContextEncoder(self, self.backbone.build(spec.shape), spec.shape))


class Inpainting(Encoder):
    """A backbone that learns what goes with what it sees."""

    config: InpaintingConfig

    def __init__(self, spec: DataSpec, config: InpaintingConfig, filler: "Filler") -> None:
        super().__init__()
        self.spec, self.config, self.filler = spec, config, filler
        self.width = self.backbone.width
        height, width = (-(-side // filler.side) for side in spec.shape[1:])
        if height * width < 2:
            raise GenzooError(
                f"images of {spec.shape} are one patch, nothing can be hidden: use smaller patches"
            )

    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """The squared error `[b]` over hidden patches."""
        self.parameters_of(turn)
        x = self.config.augmentation(prepared(batch.images, self.spec), generator)
        order = self.drawn_order(x, generator)
        predicted = self.filler(x, order, self.visible(order))
        return Loss(self.error(predicted, x, order), {})

    @property
    def backbone(self) -> Backbone:
        """What is kept, and gives the vectors."""
        network = self.filler.backbone
        return Regions(network, self.config.regions) if isinstance(network, ViT) else network

    def visible(self, order: Tensor) -> int:
        """How many patches of each image are seen, of `order` `[b, patches]`: one at least, and not all."""
        patches = order.shape[1]
        return min(max(1, round((1 - self.config.hidden_fraction) * patches)), patches - 1)

    def drawn_order(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """A permutation of each image's patches, long `[b, patches]`: the first `visible` ones are seen."""
        device = x.device if generator is None else generator.device
        patches = cut_patches(x[:1], self.filler.side).shape[1]
        draws = torch.rand(len(x), patches, generator=generator, device=device)
        return draws.argsort(1).to(x.device)

    def error(self, predicted: Tensor, x: Tensor, order: Tensor) -> Tensor:
        """`[b]`: squared errors of what is `told` `[b, patches, pixels]` about images `x`, over hidden patches."""
        side = self.filler.side
        inside = cut_patches(torch.ones_like(x[:1]), side)  # 0 where the image was padded
        squares = (predicted.float() - normalised(cut_patches(x, side), inside)).square() * inside
        of_patch = squares.sum(2) / inside.sum(2)
        return of_patch.gather(1, order[:, self.visible(order) :]).mean(1)

    def embed(self, images: Tensor) -> Tensor:
        """Representations of the whole images, nothing hidden, float32 `[n, width]`."""
        return embedded(self, self.backbone, images)


class Regions(Backbone):
    """A ViT whose vector is the means of its tokens over parts of the image, row by row, side by side."""

    def __init__(self, network: ViT, count: int) -> None:
        super().__init__()
        self.network = network
        self.parts = min(count, network.grid[0]), min(count, network.grid[1])
        self.width = self.parts[0] * self.parts[1] * network.width

    def forward(self, x: Tensor) -> Tensor:
        """As `Backbone.forward`: float32 `[b, rows * columns * width]`."""
        grid = -(-x.shape[2] // self.network.patch), -(-x.shape[3] // self.network.patch)
        tokens = self.network.tokens(x).unflatten(1, grid).permute(0, 3, 1, 2)  # [b, width, *grid]
        return F.adaptive_avg_pool2d(tokens, self.parts).permute(0, 2, 3, 1).flatten(1)


def cut_patches(x: Tensor, side: int) -> Tensor:
    """Images `[b, c, h, w]` as `[b, patches, c * side^2]`, row by row, padded with zeros below and to the right."""
    return F.pixel_unshuffle(padded_to(x, side), side).flatten(2).mT


def normalised(patches: Tensor, inside: Tensor) -> Tensor:
    """Patches `[b, n, p]` with mean 0 and variance 1 over their pixels `inside` (1 or 0); of one colour: 0."""
    count = inside.sum(2, keepdim=True)
    mean = (patches * inside).sum(2, keepdim=True) / count
    centred = (patches - mean) * inside
    return centred / (centred.square().sum(2, keepdim=True) / count + 1e-6).sqrt()


# --- who fills in ----------------------------------------------------------------------------------------------


class Filler(nn.Module, ABC):
    """A backbone, and a decoder that tells the patches of an image of which the backbone saw some."""

    backbone: Backbone
    side: int
    """Pixels along a patch."""

    @abstractmethod
    def forward(self, x: Tensor, order: Tensor, visible: int) -> Tensor:
        """All patches `[b, n, pixels]` of `x` `[b, c, h, w]`, from the first `visible` of `order` `[b, n]` alone."""


class MaskedAutoencoder(Filler):
    """The ViT runs on visible patches only; the decoder on all, hidden ones a learned token."""

    def __init__(self, config: InpaintingConfig, backbone: ViT, channels: int) -> None:
        super().__init__()
        width = config.decoder_width
        self.backbone, self.side = backbone, backbone.patch
        self.enter = nn.Linear(backbone.width, width)
        self.hidden = nn.Parameter(0.02 * torch.randn(width))
        self.place = nn.Parameter(waves(backbone.grid, width))
        block = ViTConfig(width=width, head_width=min(width, 32))
        self.blocks = nn.ModuleList(Block(block) for _ in range(config.decoder_blocks))
        self.norm = nn.LayerNorm(width)
        self.exit = nn.Linear(width, channels * self.side**2)

    @override
    def forward(self, x: Tensor, order: Tensor, visible: int) -> Tensor:
        seen = self.enter(self.backbone.tokens(x, order[:, :visible]))  # pyright: ignore[reportCallIssue]
        unseen = self.hidden.to(seen.dtype).expand(len(x), order.shape[1] - visible, -1)
        back = order.argsort(1)[..., None].expand(-1, -1, seen.shape[2])
        tokens = torch.cat([seen, unseen], 1).gather(1, back) + self.place
        for block in self.blocks:
            tokens = block(tokens)
        return self.exit(self.norm(tokens))


class ContextEncoder(Filler):
    """The backbone gets the image with grey in place of what is hidden; the decoder a vector, and gives an image."""

    def __init__(self, config: InpaintingConfig, backbone: Backbone, shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, size = shape[0], (shape[1], shape[2])
        widths = (config.decoder_width, 2 * config.decoder_width)
        self.backbone, self.side = backbone, min(config.square, max(1, max(size) // 2))
        self.coarse = (widths[1], *halved(size, len(widths)))
        self.enter = nn.Linear(backbone.width, self.coarse[0] * self.coarse[1] * self.coarse[2])
        self.decoder = ConvDecoder(size, widths, config.decoder_blocks, channels)

    @override
    def forward(self, x: Tensor, order: Tensor, visible: int) -> Tensor:
        seen = torch.zeros_like(order, dtype=x.dtype).scatter_(1, order[:, :visible], 1.0)
        height, width = x.shape[2:]
        grid = -(-height // self.side), -(-width // self.side)
        squares = seen.unflatten(1, grid)[:, None]
        squares = squares.repeat_interleave(self.side, 2).repeat_interleave(self.side, 3)
        vector = self.backbone(x * squares[..., :height, :width])
        return cut_patches(self.decoder(self.enter(vector).unflatten(1, self.coarse)), self.side)
