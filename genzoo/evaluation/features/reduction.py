"""Images made small for an encoder: what they show is seen at a side of some thirty pixels, at a bounded cost."""

from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from genzoo.core.spec import Batch, DataSpec
from genzoo.data.split import LazyImages, Split

SIDE = 32
"""The most pixels a side that an encoder of features sees."""
BYTE = 256
PART = 512
"""Images reduced at once."""


def reduced_spec(spec: DataSpec) -> DataSpec:
    """The spec of reduced images: 256 levels, so that means of few levels are kept; small images' spec as it is.

    >>> reduced_spec(DataSpec((3, 64, 100), 256)).shape, reduced_spec(DataSpec((1, 28, 28), 2)).levels
    ((3, 16, 25), 2)
    """
    factor = _factor(spec)
    if factor == 1:
        return DataSpec(spec.shape, spec.levels)
    channels, height, width = spec.shape
    return DataSpec((channels, -(-height // factor), -(-width // factor)), BYTE)


def reduced(images: Tensor, spec: DataSpec) -> Tensor:
    """Integer images `[n, *spec.shape]` to those of `reduced_spec(spec)`: means over areas, rounded."""
    small = reduced_spec(spec)
    if small.shape == spec.shape:
        return images
    assert spec.levels is not None
    scale = (BYTE - 1) / (spec.levels - 1)
    parts = [F.adaptive_avg_pool2d(part.float(), small.shape[1:]) for part in images.split(PART)]
    return (torch.cat(parts) * scale).round().to(torch.uint8)


@final
class ReducedSplit(Split):
    """A split whose images are reduced as they are read; labels are left out."""

    def __init__(self, whole: Split, spec: DataSpec) -> None:
        self._whole, self._spec = whole, spec

    @property
    @override
    def images(self) -> LazyImages:
        return LazyImages(
            lambda places: self.batch(places).images, (len(self._whole), *reduced_spec(self._spec).shape)
        )

    @property
    @override
    def labels(self) -> None:
        return None

    @override
    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        return Batch(reduced(self._whole.batch(indices, generator).images, self._spec), None)


def _factor(spec: DataSpec) -> int:
    return -(-max(spec.shape[1:]) // SIDE)
