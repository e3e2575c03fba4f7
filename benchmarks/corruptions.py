"""Eight ways in which images go wrong, five severities each, as data: what a metric of sample quality must notice.

They are chosen by what users of generative models meet, not by what metrics see:

    noise        samples that are not denoised to the end, too few steps of a sampler
    blur         autoencoders, and means in place of samples
    brightness   colours that drift: each image lighter or darker by the same number of stops
    contrast     washed-out samples, and too little guidance
    occlusion    missing or pasted parts: a grey square anywhere
    shift        objects off their place: models that do not know the frame
    jpeg         training images that were compressed, or data that differ from the references only in this
    pixelation   coarse grids of codes, and images that were enlarged

`BESIDE` holds two that generative models hardly make, but that are known to be hard: turns, and crops that magnify.

Severities rise by construction: every image draws its own place, direction or noise from the generator, and with equal
generators only the amount differs between severities. Amounts that are lengths are shares of the image's shorter side,
so that they mean the same at any resolution. Severity 0 is the image as it is.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.data.augmentations import GaussianBlur, RandomCrop

SEVERITIES = (0, 1, 2, 3, 4, 5)
BYTE = 255

Change = Callable[[Tensor, float, torch.Generator], Tensor]
"""Of float images `[n, c, h, w]` in [0, 1], an amount and a generator, to the same (values outside are cut off)."""


@dataclass(frozen=True)
class Corruption:
    """A change and its amounts for severities 1 to 5, in `unit`."""

    change: Change
    amounts: tuple[float, float, float, float, float]
    unit: str

    def __call__(self, images: Tensor, levels: int, severity: int, generator: torch.Generator) -> Tensor:
        """Integer `images` `[n, c, h, w]` in 0 .. levels-1 at a severity of 0 to 5; dtype and range are kept.

        Raises `GenzooError` for another severity, or for images that cannot be changed so.
        """
        if severity not in SEVERITIES:
            raise GenzooError(f"severities are 0 to 5, got {severity}")
        if severity == 0:
            return images.clone()
        changed = self.change(images.float() / (levels - 1), self.amounts[severity - 1], generator)
        return (changed.clamp(0, 1) * (levels - 1)).round().to(images.dtype)


# --- values ------------------------------------------------------------------------------------------------------


def noise(p: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Normal noise on every sub-pixel."""
    return p + amount * torch.randn(p.shape, generator=generator)


def brightness(p: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Each image times 2 to the power of the amount, or divided by it."""
    sign = (torch.rand(len(p), 1, 1, 1, generator=generator) < 0.5).float() * 2 - 1
    return p * 2 ** (sign * amount)


def contrast(p: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Less distance from the image's mean; nothing is drawn."""
    middle = p.mean((1, 2, 3), keepdim=True)
    return middle + (1 - amount) * (p - middle)


def jpeg(p: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Written and read as JPEG of the quality 100 less the amount; nothing is drawn.

    Raises `GenzooError` for images that are neither grey nor RGB.
    """
    if p.shape[1] not in (1, 3):
        raise GenzooError(
            f"JPEG takes images of 1 or 3 channels, got {p.shape[1]}: leave this corruption out"
        )
    rows = (p * BYTE).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    read = [_through_jpeg(row, round(100 - amount)) for row in rows]
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).float() / BYTE


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)


# --- places ------------------------------------------------------------------------------------------------------


def blur(p: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """A Gaussian of a width of its own for each image, within a quarter of the amount."""
    sigma = amount * min(p.shape[2:])
    return GaussianBlur((0.75 * sigma, 1.25 * sigma), share=1.0)(p, generator)


def occlusion(p: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """A square of one random grey about a random point; what lies outside of the image is cut off."""
    height, width = p.shape[2:]
    grey, down, across = torch.rand(3, len(p), 1, 1, 1, generator=generator)
    reach = amount * min(height, width) / 2
    rows = (torch.arange(height).view(1, 1, -1, 1) - down * (height - 1)).abs() <= reach
    columns = (torch.arange(width).view(1, 1, 1, -1) - across * (width - 1)).abs() <= reach
    return torch.where(rows & columns, grey, p)


def shift(p: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """By whole pixels in a random direction, so that nothing is smoothed; the edge goes on."""
    n, channels, height, width = p.shape
    angle = 2 * pi * torch.rand(n, 1, generator=generator)
    length = amount * min(height, width)
    rows = (torch.arange(height) - (length * angle.sin()).round().long()).clamp(0, height - 1)
    columns = (torch.arange(width) - (length * angle.cos()).round().long()).clamp(0, width - 1)
    image, channel = torch.arange(n).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1)
    return p[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def pixelation(p: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Squares of whole pixels, each of its mean, on a grid from the upper left corner; nothing is drawn."""
    size = max(1, round(amount * min(p.shape[2:])))
    down, across = (_block_means(side, size) for side in p.shape[2:])
    return down @ p @ across.T


def _block_means(side: int, size: int) -> Tensor:
    """The matrix `[side, side]` that puts the mean of each stretch of `size` places in their stead."""
    block = torch.arange(side) // size
    same = (block[:, None] == block).float()
    return same / same.sum(1, keepdim=True)


def turn(p: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """By up to so many degrees to either side, uniform; the edge goes on."""
    return _cropped(p, RandomCrop((1.0, 1.0), (1.0, 1.0), degrees=amount, ground=None), generator)


def magnification(p: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """A random window that lacks this share of the area, enlarged to the whole."""
    return _cropped(p, RandomCrop((1 - amount, 1 - amount), (1.0, 1.0), ground=None), generator)


def _cropped(p: Tensor, crop: RandomCrop, generator: torch.Generator) -> Tensor:
    return (crop(2 * p - 1, generator) + 1) / 2


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": Corruption(noise, (0.02, 0.05, 0.1, 0.2, 0.4), "standard deviation over the range"),
    "blur": Corruption(blur, (0.02, 0.035, 0.05, 0.08, 0.12), "standard deviation over the side"),
    "brightness": Corruption(brightness, (0.15, 0.3, 0.6, 1.0, 1.5), "stops"),
    "contrast": Corruption(contrast, (0.1, 0.2, 0.35, 0.5, 0.75), "share lost"),
    "occlusion": Corruption(occlusion, (0.15, 0.25, 0.35, 0.5, 0.7), "its side over the image's"),
    "shift": Corruption(shift, (0.04, 0.08, 0.14, 0.2, 0.3), "share of the side"),
    "jpeg": Corruption(jpeg, (10, 30, 50, 70, 90), "100 less the quality"),
    "pixelation": Corruption(pixelation, (0.07, 0.11, 0.14, 0.21, 0.29), "a block's side over the image's"),
}
"""The eight that the bar is about."""

BESIDE: Mapping[str, Corruption] = {
    "turn": Corruption(turn, (10, 20, 40, 60, 80), "most degrees"),
    "magnification": Corruption(magnification, (0.1, 0.25, 0.4, 0.6, 0.8), "share of the area lost"),
}
"""Shown beside them."""
