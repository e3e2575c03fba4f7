"""Lossless codecs of single images, with the bytes that they really take.

A code is measured by the whole file: signature, headers and checksums are bytes that somebody has to keep. A file
tells by itself where it ends, so by Kraft's inequality 2^-length summed over all images is at most 1.
"""

import importlib
import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, features

from genzoo.core.spec import DataSpec


@dataclass(frozen=True)
class Codec:
    """A file format of Pillow that keeps every pixel.

    Images of other than one or three channels are kept as a tall grey one. `rgb_only` formats get grey images as
    colour ones with equal channels; `one_bit` formats have black and white. All hold up to 256 levels.
    """

    name: str
    format: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rgb_only: bool = False
    one_bit: bool = False
    plugin: str | None = None
    """A package that teaches Pillow this format; None where Pillow knows it."""
    needs: str | None = None
    """What Pillow must have been built with."""

    @property
    def available(self) -> bool:
        """Whether it can be used here."""
        built = self.needs is None or features.check(self.needs)
        return bool(built) and (self.plugin is None or importlib.util.find_spec(self.plugin) is not None)

    def fits(self, spec: DataSpec) -> bool:
        """Whether it can hold images of `spec`."""
        return spec.levels is not None and spec.levels <= 256

    def encode(self, image: np.ndarray, levels: int) -> bytes:
        """The file of an integer image `[c, h, w]` in 0 .. levels-1."""
        if self.plugin is not None:
            importlib.import_module(self.plugin)
        picture = self._picture(image, levels)
        stream = io.BytesIO()
        picture.save(stream, format=self.format, **self.options)
        return stream.getvalue()

    def decode(self, data: bytes, spec: DataSpec) -> np.ndarray:
        """The inverse of `encode`: uint8 of `spec.shape`."""
        if self.plugin is not None:
            importlib.import_module(self.plugin)
        pixels = np.asarray(Image.open(io.BytesIO(data)))
        if pixels.dtype == bool or (spec.levels == 2 and pixels.max(initial=0) > 1):
            pixels = (pixels > 0).astype(np.uint8)
        if spec.shape[0] == 3:
            return pixels.transpose(2, 0, 1)
        return (pixels[..., 0] if pixels.ndim == 3 else pixels).reshape(spec.shape)

    def _picture(self, image: np.ndarray, levels: int) -> Image.Image:
        """For Pillow: RGB, grey, or black and white where the format has that."""
        factor = 255 if levels == 2 else 1  # black and white, not black and nearly black
        pixels = image.astype(np.uint8) * np.uint8(factor)
        if len(image) == 3:
            return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        picture = Image.fromarray(np.ascontiguousarray(pixels.reshape(-1, pixels.shape[2])))
        if levels == 2 and self.one_bit:
            return picture.convert("1", dither=Image.Dither.NONE)
        return picture.convert("RGB") if self.rgb_only else picture


PNG = Codec("PNG", "PNG", {"optimize": True}, one_bit=True)
WEBP = Codec(
    "WebP lossless", "WEBP", {"lossless": True, "quality": 100, "method": 6}, rgb_only=True, needs="webp"
)
JPEG_XL = Codec("JPEG XL lossless", "JXL", {"lossless": True, "effort": 7}, plugin="pillow_jxl")
CODECS = (PNG, WEBP, JPEG_XL)
