"""Random changes of images that leave what they show: the views of contrastive learning.

Images are floats `[b, c, h, w]` in [-1, 1]. Every image draws numbers of its own from `generator`, and the batch is
then changed at once: one resampling, one matrix per image for colours, Gaussian matrices for blur. (Transforms of
`torchvision.transforms.v2` draw from the global random state, and once for a whole batch, which would give the same
crop of every image; where one of its functional kernels does a batch without drawing, as for grey, it is used.)
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from math import log, pi, radians
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as kernels
from typing_extensions import override

from genzoo.core.bounds import Depth, NotNegative, OptionalDepth, Share
from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError

GROUND = -1.0
"""Black."""
LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue add to grey (ITU-R BT.601), as in torchvision."""
YIQ = (LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))
"""Luma and two coordinates of chroma of a colour; a turn of the latter changes the hue (NTSC 1953)."""


class Augmentation(Configurable, ABC):
    """A random change of a batch of images: a frozen dataclass of plain numbers."""

    @final
    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Of floats `[b, c, h, w]` in [-1, 1] to the same, computed in float32 or better, under autocast too.

        Raises `GenzooError` for anything but floating-point images.
        """
        if x.ndim != 4 or not x.is_floating_point():
            raise GenzooError(
                f"augmentations take floats [b, c, h, w] in [-1, 1], got {x.dtype} {list(x.shape)}"
            )
        with torch.autocast(x.device.type, enabled=False):
            return self.changed(x if x.dtype == torch.float64 else x.float(), generator)

    @abstractmethod
    def changed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """`[b, c, h, w]` in float32 or better to the same, in a new tensor or `x` itself."""


@dataclass(frozen=True)
class Compose(Augmentation):
    """One after the other; nothing where there are no parts."""

    parts: tuple[Augmentation, ...] = ()
    """The first comes first."""

    def changed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """All parts draw from the same generator in turn."""
        for part in self.parts:
            x = part(x, generator)
        return x


# --- places ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RandomCrop(Augmentation):
    """A window of the image, perhaps mirrored, turned, shifted and sheared, in a single bilinear resampling.

    Windows may be larger than the image, which then looks smaller. Nothing is smoothed before it shrinks: choose a
    `size` of at least half of what a typical window measures.
    """

    scale: tuple[float, float] = (0.3, 1.0)
    """Least and largest area of the window as a share of the image's; uniform."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest stretch, width over height against the image's own; its logarithm is uniform."""
    flip: float = 0.0
    """Probability of mirroring left and right."""
    degrees: float = 0.0
    """Most rotation to either side; uniform."""
    shift: float = 0.0
    """Most translation to each side as a share of the image's sides, beyond that of the window; uniform."""
    shear: float = 0.0
    """Most degrees of horizontal shear; uniform."""
    size: tuple[int, int] | None = None
    """Height and width in pixels of what comes out; those of the image by default."""
    ground: float | None = GROUND
    """What lies outside of the image; its edge goes on where None."""

    def __post_init__(self) -> None:
        fine = 0 < self.scale[0] <= self.scale[1] and 0 < self.ratio[0] <= self.ratio[1]
        if not fine or (self.size is not None and min(self.size) < 1):
            raise GenzooError(f"scale, ratio and size of a crop must be positive and rising: {self}")

    @override
    def changed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return resampled(x, self.maps(x, generator), self.size or (x.shape[2], x.shape[3]), self.ground)

    def maps(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """`[b, 2, 3]` from places (x, y, 1) of the result to places (x, y) of the image, edges at -1 and 1."""
        u = draws(x, 8, generator)
        sides = self._window(u[:, 0], u[:, 1])
        free = (2 * u[:, 2:4] - 1) * (1 - sides).abs()
        centre = free + 2 * self.shift * (2 * u[:, 4:6] - 1)
        mirror = torch.where(draws(x, 1, generator)[:, 0] < self.flip, -1.0, 1.0).to(x)
        turn = radians(self.degrees) * (2 * u[:, 6] - 1)
        slant = (radians(self.shear) * (2 * u[:, 7] - 1)).tan()
        # angles are those of pixels, so lengths are in half heights of the image in between
        aspect = x.shape[3] / x.shape[2]
        across, down = aspect * sides[:, 0] * mirror, sides[:, 1]
        cos, sin = turn.cos(), turn.sin()
        first = torch.stack([cos * across / aspect, (cos * slant - sin) * down / aspect, centre[:, 0]], 1)
        second = torch.stack([sin * across, (sin * slant + cos) * down, centre[:, 1]], 1)
        return torch.stack([first, second], 1)

    def _window(self, area: Tensor, stretch: Tensor) -> Tensor:
        """Width and height `[b, 2]` of a window as shares of the image's, from two uniform numbers `[b]`."""
        low, high = self.scale
        area = low + (high - low) * area
        half = 0.5 * (log(self.ratio[0]) + log(self.ratio[1] / self.ratio[0]) * stretch)
        sides = area.sqrt()[:, None] * torch.stack([half, -half], 1).exp()
        return sides.clamp(max=max(1.0, high**0.5))


def resampled(x: Tensor, maps: Tensor, size: tuple[int, int], ground: float | None = GROUND) -> Tensor:
    """`x` `[b, c, h, w]` at the places that `maps` `[b, 2, 3]` give, `[b, c, *size]`, bilinearly.

    `maps` take places (x, y, 1) of the result to places of the image, both with their outer edges at -1 and 1.
    Outside lies `ground`, or the edge goes on where it is None.
    """
    grid = F.affine_grid(maps, [len(x), x.shape[1], *size], align_corners=False)
    if ground is None:
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    shown = F.grid_sample(x - ground, grid, padding_mode="zeros", align_corners=False)
    return (shown + ground).clamp(-1, 1)


@dataclass(frozen=True)
class RandomErasing(Augmentation):
    """A rectangle of one grey in place of what was there (Zhong et al. 2020, "Random Erasing Data Augmentation")."""

    share: float = 0.5
    """Probability that an image is touched."""
    area: tuple[float, float] = (0.02, 0.25)
    """Least and largest area of the rectangle as a share of the image's; uniform."""
    ratio: tuple[float, float] = (1 / 3, 3.0)
    """Least and largest width over height; its logarithm is uniform."""
    fill: float = 0.0
    """What it is filled with."""

    def __post_init__(self) -> None:
        if not (0 <= self.area[0] <= self.area[1] <= 1 and 0 < self.ratio[0] <= self.ratio[1]):
            raise GenzooError(
                f"area of what is erased must rise within 0..1, ratio be positive and rise: {self}"
            )

    def changed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Rectangles are rounded to whole pixels and lie inside the image."""
        u = draws(x, 5, generator)
        height, width = x.shape[2:]
        area = height * width * (self.area[0] + (self.area[1] - self.area[0]) * u[:, 0])
        half = 0.5 * (log(self.ratio[0]) + log(self.ratio[1] / self.ratio[0]) * u[:, 1])
        rows = _stretch(height, area.sqrt() * (-half).exp(), u[:, 2])
        columns = _stretch(width, area.sqrt() * half.exp(), u[:, 3])
        hole = (
            rows[:, None, :, None] & columns[:, None, None, :] & (u[:, 4] < self.share)[:, None, None, None]
        )
        return torch.where(hole, x.new_full((), self.fill), x)


def _stretch(side: int, length: Tensor, u: Tensor) -> Tensor:
    """The places of `side` in a stretch of about `length` `[b]` that begins anywhere (`u` `[b]`), bool `[b, side]`."""
    length = length.round().clamp(max=side)
    start = (u * (side - length + 1)).floor()
    places = torch.arange(side, device=u.device)
    return (places >= start[:, None]) & (places < (start + length)[:, None])


# --- colours ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ColourJitter(Augmentation):
    """Brightness, contrast, saturation, hue and gamma, in this order; images of one channel have no chroma.

    With pixels p in [0, 1] and their luma y: p <- a p; p <- a p + (1 - a) mean(y); chroma is scaled and turned at the
    same luma; p <- p^a. All but the last are one affine map per image, so values are cut off only once.
    """

    brightness: NotNegative = 0.0
    """The factor is uniform within this of 1 (and not negative)."""
    contrast: NotNegative = 0.0
    """The same for the distance from the mean luma."""
    saturation: NotNegative = 0.0
    """The same for the distance from grey; for three channels only."""
    hue: NotNegative = 0.0
    """The most that hues turn to either side, in turns; uniform; for three channels only."""
    gamma: NotNegative = 0.0
    """The exponent's logarithm is uniform within this of 0."""
    share: Share = 1.0
    """Probability that an image is touched."""

    def changed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """The same shape; values that leave [-1, 1] are cut off."""
        u = draws(x, 6, generator)
        sign = (2 * u[:, :5] - 1) * (u[:, 5:] < self.share)
        brightness, contrast, saturation = (
            (1 + most * sign[:, n]).clamp(min=0)
            for n, most in enumerate((self.brightness, self.contrast, self.saturation))
        )
        p = (x + 1) / 2
        middle = _luma(p).mean((1, 2, 3)) * brightness * (1 - contrast)
        p = p * (brightness * contrast)[:, None, None, None]
        if x.shape[1] == 3 and (self.saturation or self.hue):
            p = torch.einsum("bij,bjhw->bihw", _chroma_maps(saturation, 2 * pi * self.hue * sign[:, 3]), p)
        p = (p + middle[:, None, None, None]).clamp(0, 1)
        if self.gamma:
            p = p ** (self.gamma * sign[:, 4]).exp()[:, None, None, None]
        return 2 * p - 1


def _luma(p: Tensor) -> Tensor:
    """`[b, 1, h, w]`: torchvision's grey of three channels, the mean of any other number."""
    return kernels.rgb_to_grayscale(p) if p.shape[1] == 3 else p.mean(1, keepdim=True)


def _chroma_maps(saturation: Tensor, turn: Tensor) -> Tensor:
    """Matrices `[b, 3, 3]` on colours that scale chroma and turn it by an angle (radians), both `[b]`."""
    cos, sin = saturation * turn.cos(), saturation * turn.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rows = [[one, zero, zero], [zero, cos, -sin], [zero, sin, cos]]
    inner = torch.stack([torch.stack(row, 1) for row in rows], 1)
    there = torch.tensor(YIQ, dtype=cos.dtype, device=cos.device)
    return torch.linalg.inv(there) @ inner @ there


@dataclass(frozen=True)
class RandomGrey(Augmentation):
    """Some of the images without their colours, in as many channels; grey ones stay as they are."""

    share: Share = 0.2
    """Probability."""

    @override
    def changed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        grey = draws(x, 1, generator)[:, :, None, None] < self.share
        return torch.where(grey, _luma(x).expand_as(x), x)


@dataclass(frozen=True)
class GaussianBlur(Augmentation):
    """Each image smoothed by a Gaussian of its own width."""

    sigma: tuple[NotNegative, NotNegative] = (0.1, 1.0)
    """Least and largest standard deviation in pixels; uniform."""
    share: Share = 0.5
    """Probability that an image is touched."""

    def changed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Weights are normalised over what lies inside the image."""
        u = draws(x, 2, generator)
        sigma = (self.sigma[0] + (self.sigma[1] - self.sigma[0]) * u[:, 0]) * (u[:, 1] < self.share)
        down, across = (_smoothing(side, sigma)[:, None] for side in x.shape[2:])
        return down @ x @ across.mT


def _smoothing(side: int, sigma: Tensor) -> Tensor:
    """Matrices `[b, side, side]` that average along a side with Gaussian weights; the identity where sigma is 0."""
    places = torch.arange(side, device=sigma.device, dtype=sigma.dtype)
    distance = (places[:, None] - places).square()
    return (-distance / (2 * sigma.clamp(min=1e-3).square())[:, None, None]).softmax(-1)


def draws(x: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """`count` uniform numbers for each image of `x`, `[b, count]`, where and as what it is."""
    device = x.device if generator is None else generator.device
    return torch.rand(len(x), count, generator=generator, device=device).to(x)


# --- several views ---------------------------------------------------------------------------------------------


def views(
    augmentation: Augmentation, x: Tensor, count: int = 2, generator: torch.Generator | None = None
) -> Tensor:
    """`count` views of each image `[b, c, h, w]`, `[count, b, c, h', w']`."""
    return augmentation(x.repeat(count, 1, 1, 1), generator).unflatten(0, (count, len(x)))


@dataclass(frozen=True)
class MultiCrop(Configurable):
    """Some views of one kind and more of another, cheaper one (Caron et al. 2020, SwAV, section 3.3)."""

    large: Augmentation
    """Gives the views that targets come from."""
    small: Augmentation
    """Gives further views, which may be smaller images."""
    large_count: Depth = 2
    """Views of the first kind."""
    small_count: OptionalDepth = 4
    """Views of the second kind."""

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Of floats `[b, c, h, w]`: `[large_count, b, c, h', w']` and `[small_count, b, c, h'', w'']`."""
        large = views(self.large, x, self.large_count, generator)
        return large, views(self.small, x, self.small_count, generator)


def cropped_to(augmentation: Augmentation, size: tuple[int, int], scale: tuple[float, float]) -> Augmentation:
    """`augmentation` with its crops of another size in pixels and another share of the image's area.

    Raises `GenzooError` where it has no `RandomCrop`.
    """
    if isinstance(augmentation, RandomCrop):
        return replace(augmentation, size=size, scale=scale)
    parts = augmentation.parts if isinstance(augmentation, Compose) else ()
    crops = [n for n, part in enumerate(parts) if isinstance(part, (RandomCrop, Compose))]
    if not crops:
        raise GenzooError(f"small crops need an augmentation with a RandomCrop, got {augmentation}")
    first = crops[0]
    return Compose((*parts[:first], cropped_to(parts[first], size, scale), *parts[first + 1 :]))
