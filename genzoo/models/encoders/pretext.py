"""Encoders from puzzles that images pose by themselves: which way up, and what goes where.

    rotation   turn an image by each quarter, tell the turns apart                 Gidaris et al. 2018, equation 3
    jigsaw     shuffle an image's tiles by one of P permutations, tell which one   Noroozi & Favaro 2016, section 3

Both are cross-entropies, with the chance levels log 4 and log P. Their heads are thrown away: `embed` gives the
backbone's vectors, rotation's of the image as it is, the jigsaw's of its tiles in their places, side by side. What
would solve a puzzle without looking at things is taken away: turns are of squares without borders, tiles are smaller
than their cells (edges do not fit) and as bright as each other.
`genzoo.models.encoders.inpainting` has the third puzzle, filling in what is hidden.
"""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.bounds import Width
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec
from genzoo.core.trainable import Loss
from genzoo.data.augmentations import Augmentation
from genzoo.models.base import Encoder, EncoderConfig
from genzoo.models.encoders.embedding import check_discrete, embedded, prepared
from genzoo.nn.backbones import Backbone, BackboneConfig, ProjectionConfig, ResNetConfig

LARGEST_GRID = 3
"""Tiles per side at most: 16 tiles have more permutations than can be listed."""

TILE_MARGIN = 0.15
"""Share of a cell that a tile is smaller by: 75 to 64 pixels in the paper."""


# --- rotation --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RotationConfig(EncoderConfig):
    """Each image in all four turns, which do better together than one at a time (Gidaris et al. 2018, section 3.1)."""

    augmentation: Augmentation
    """Before the turn, each of the four drawn anew; it must not rotate by much or flip upside down."""
    backbone: BackboneConfig = field(default_factory=ResNetConfig)
    """Images to representations."""
    projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    """Before the last linear layer."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "Rotation":
        """Raises `GenzooError` where the network does not take the data."""
        check_discrete(spec)
        return Rotation(spec, self, self.backbone.build(spec.shape))


class Rotation(Encoder):
    """A backbone that learns which way is up."""

    watched = ("accuracy",)
    config: RotationConfig

    def __init__(self, spec: DataSpec, config: RotationConfig, backbone: Backbone) -> None:
        super().__init__()
        self.spec, self.config, self.backbone, self.width = spec, config, backbone, backbone.width
        self.head = _classifier(config.projection, backbone.width, 4)

    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """The cross-entropy `[b]`, a mean over the four turns; the part is the share told right."""
        self.parameters_of(turn)
        x = prepared(batch.images, self.spec)
        turned = torch.cat([quarter_turn(self.config.augmentation(x, generator), k) for k in range(4)])
        right = torch.arange(4, device=x.device).repeat_interleave(len(x))
        total, accuracy = _cross_entropy_and_accuracy(self.head(self.backbone(turned)), right)
        return Loss(total.view(4, -1).mean(0), {"accuracy": accuracy.view(4, -1).mean(0)})

    def embed(self, images: Tensor) -> Tensor:
        """Representations of the images as they are, float32 `[n, width]`."""
        return embedded(self, self.backbone, images)


def quarter_turn(x: Tensor, k: int) -> Tensor:
    """`[b, c, h, w]` turned left by `k` quarters, the size as before.

    Of an image that is no square, the central one is turned and then stretched, whatever `k`: otherwise its shape would
    tell.
    """
    height, width = x.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    turned = x[..., top : top + side, left : left + side].rot90(k, (2, 3))
    if height == width:
        return turned
    return F.interpolate(turned, (height, width), mode="bilinear", align_corners=False)


# --- jigsaw ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JigsawConfig(EncoderConfig):
    """Tiles through the backbone one by one; their vectors, side by side, through the head."""

    augmentation: Augmentation
    """Of the whole image, before it is cut."""
    backbone: BackboneConfig = field(default_factory=ResNetConfig)
    """Images, and tiles, to representations."""
    projection: ProjectionConfig = field(default_factory=lambda: ProjectionConfig(hidden=256, out=64))
    """Of each tile's representation; `hidden` is the width of the head as well."""
    grid: Width = 3
    """Tiles per side, 2 or 3."""
    permutations: Width = 64
    """How many there are to tell apart, at most: (grid^2)! exist."""
    normalised: bool = True
    """Whether every tile gets mean 0 and standard deviation 1/2, so that shading does not tell its place."""
    enlarged: bool = True
    """Whether tiles are stretched to the size of the image: grid^2 times the work. Small ones of small images have
    hardly a pixel left after the backbone's first halvings, and teach it little about whole images."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "Jigsaw":
        """Raises `GenzooError` where the network does not take the data, or the image has too few pixels."""
        check_discrete(spec)
        if not 2 <= self.grid <= LARGEST_GRID or self.permutations < 2:
            raise GenzooError(f"a jigsaw needs a grid of 2 or 3 and 2 or more permutations: {self}")
        if min(spec.shape[1:]) < self.grid:
            raise GenzooError(
                f"images of {spec.shape} have too few pixels for a {self.grid}x{self.grid} jigsaw"
            )
        return Jigsaw(spec, self, self.backbone.build(spec.shape))


class Jigsaw(Encoder):
    """A backbone that learns which tile belongs where."""

    watched = ("accuracy",)
    config: JigsawConfig
    orders: Tensor

    def __init__(self, spec: DataSpec, config: JigsawConfig, backbone: Backbone) -> None:
        super().__init__()
        self.spec, self.config, self.backbone = spec, config, TileBackbone(backbone, config, spec.shape)
        self.width, tiles, projection = self.backbone.width, config.grid**2, config.projection
        orders = distant_permutations(tiles, config.permutations)
        self.register_buffer("orders", torch.tensor(orders))  # [p, tiles]
        self.projection = projection.build(backbone.width)
        self.head = ProjectionConfig(projection.hidden, len(orders)).build(tiles * projection.out)

    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """The cross-entropy `[b]` of one permutation per image; the part is the share told right."""
        self.parameters_of(turn)
        x = self.config.augmentation(prepared(batch.images, self.spec), generator)
        right = _below(len(self.orders), (len(x),), x, generator)
        tiles = shuffled(cut_tiles(x, self.config.grid, TILE_MARGIN, generator), self.orders[right])
        total, accuracy = _cross_entropy_and_accuracy(self.logits(tiles), right)
        return Loss(total, {"accuracy": accuracy})

    def logits(self, tiles: Tensor) -> Tensor:
        """Tiles `[b, t, c, h, w]` to `[b, p]`; each goes through the backbone by itself."""
        vectors = self.projection(self.backbone.of_tiles(tiles).flatten(0, 1))
        return self.head(F.relu(vectors).unflatten(0, tiles.shape[:2]).flatten(1))

    def embed(self, images: Tensor) -> Tensor:
        """Representations of the tiles of whole images, each where it belongs, float32 `[n, width]`."""
        return embedded(self, self.backbone, images)


class TileBackbone(Backbone):
    """A backbone that looks at tiles one by one, as the puzzle taught it to; the vector has them side by side.

    Of whole images, which it never saw, it tells less. Vectors are in units of how they vary over the tiles of
    training images, around their mean: most of each is common to all tiles and would drown cosines (He et al. 2022,
    appendix A.1, standardise before a linear probe, likewise without learned scales).
    """

    def __init__(self, network: Backbone, config: JigsawConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.grid, self.normalised = network, config.grid, config.normalised
        self.size = (shape[1], shape[2]) if config.enlarged else None
        self.norm = nn.BatchNorm1d(network.width, affine=False)
        self.width = config.grid**2 * network.width

    def forward(self, x: Tensor) -> Tensor:
        """As `Backbone.forward`: float32 `[b, grid^2 * width]`, row by row."""
        return self.of_tiles(cut_tiles(x, self.grid)).flatten(1)

    def of_tiles(self, tiles: Tensor) -> Tensor:
        """Tiles `[b, t, c, h, w]` to float32 `[b, t, width of the network]`."""
        shown = tiles if self.size is None else enlarged(tiles, self.size)
        vectors = self.network((evened(shown) if self.normalised else shown).flatten(0, 1))
        return self.norm(vectors).unflatten(0, tiles.shape[:2])


def distant_permutations(n: int, count: int) -> np.ndarray:
    """`[count, n]` permutations that differ in many places, the identity first; all n! where these are fewer.

    Greedily, each next one as far from its nearest predecessor as can be, then from all of them, then first in
    alphabetical order (Hamming distances; Noroozi & Favaro 2016, algorithm 1, with the minimum before the sum).

    >>> distant_permutations(4, 3).tolist()
    [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1]]
    """
    total = math.factorial(n)
    listed = itertools.chain.from_iterable(itertools.permutations(range(n)))
    # [n, n!]: sums run along memory
    every = np.fromiter(listed, np.uint8, n * total).reshape(total, n).T.copy()
    count = min(count, total)
    chosen, nearest, sums = [0], np.full(total, n, np.uint8), np.zeros(total, np.int32)
    while len(chosen) < count:
        distance = (every != every[:, chosen[-1:]]).sum(0, dtype=np.uint8)
        nearest, sums = np.minimum(nearest, distance), sums + distance
        chosen.append(int(np.argmax(nearest.astype(np.int32) * (n * count + 1) + sums)))
    return every[:, chosen].T.astype(np.int64)


def cut_tiles(x: Tensor, grid: int, margin: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
    """Images `[b, c, h, w]` as tiles `[b, grid^2, c, h', w']`, row by row, all of one size.

    With `margin` each tile is that share smaller than its cell (a pixel at least, unless the cell has but one) and lies
    anywhere in it. Pixels that the grid does not divide by are left out between cells.
    """
    where = [_windows(side, len(x), grid, margin, x, generator) for side in x.shape[2:]]
    rows = where[0].flatten(1, 2)[:, :, None, :, None]  # [b, t, 1, h', 1]
    columns = where[1].transpose(1, 2).flatten(1, 2)[:, :, None, None, :]  # [b, t, 1, 1, w']
    image = torch.arange(len(x), device=x.device)[:, None, None, None, None]
    channel = torch.arange(x.shape[1], device=x.device)[None, None, :, None, None]
    return x[image, channel, rows, columns]


def _windows(
    side: int, images: int, grid: int, margin: float, like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """The places along one side that the tiles take, long `[images, grid, grid, length]`: [0] is along this side."""
    cell = side // grid
    spare = min(max(1, round(margin * cell)), cell - 1) if margin else 0
    start = torch.arange(grid, device=like.device) * side // grid
    start = start[:, None].expand(images, grid, grid)
    if spare:  # what is not random draws nothing
        start = start + _below(spare + 1, (images, grid, grid), like, generator)
    return start[..., None] + torch.arange(cell - spare, device=like.device)


def shuffled(tiles: Tensor, orders: Tensor) -> Tensor:
    """Tiles `[b, t, ...]` in the orders long `[b, t]`: place i gets tile `orders[i]`."""
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], orders]


def reassembled(tiles: Tensor, grid: int) -> Tensor:
    """Tiles `[b, grid^2, c, h, w]` as images `[b, c, grid h, grid w]`, row by row."""
    rows = [torch.cat(list(row.unbind(1)), -1) for row in tiles.split(grid, 1)]
    return torch.cat(rows, -2)


def enlarged(tiles: Tensor, size: tuple[int, int]) -> Tensor:
    """Tiles `[b, t, c, h, w]` stretched to `[b, t, c, *size]`, bilinearly."""
    stretched = F.interpolate(tiles.flatten(0, 1), size, mode="bilinear", align_corners=False)
    return stretched.unflatten(0, tiles.shape[:2])


def evened(tiles: Tensor) -> Tensor:
    """Tiles `[..., c, h, w]` with mean 0 and standard deviation 1/2 of each channel; those of one colour become 0."""
    deviation, mean = torch.std_mean(tiles, (-2, -1), correction=0, keepdim=True)
    return 0.5 * (tiles - mean) / deviation.clamp(min=0.01)


# --- what both need --------------------------------------------------------------------------------------------


def _classifier(projection: ProjectionConfig, width: int, classes: int) -> nn.Module:
    """`[b, width]` to logits `[b, classes]`."""
    return nn.Sequential(projection.build(width), nn.ReLU(), nn.Linear(projection.out, classes))


def _cross_entropy_and_accuracy(logits: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and whether the best guess is right, each `[n]`, of `[n, classes]` and long `[n]`."""
    return F.cross_entropy(logits.float(), right, reduction="none"), (logits.argmax(1) == right).float()


def _below(n: int, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random whole numbers 0 .. n-1, on the device of `like`."""
    device = like.device if generator is None else generator.device
    return torch.randint(n, shape, generator=generator, device=device).to(like.device)
