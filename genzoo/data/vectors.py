"""Images under vectors of their own, such as an encoder's: what a model conditioned on vectors trains on."""

from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch
from genzoo.data.split import LazyImages, Split


@final
class VectorSplit(Split):
    """Another split's images, with float vectors `[n, d]` in the place of its labels.

    Raises `GenzooError` where there is not one vector for each image.
    """

    def __init__(self, split: Split, vectors: Tensor) -> None:
        if vectors.ndim != 2 or len(vectors) != len(split) or not vectors.is_floating_point():
            raise GenzooError(
                f"there must be one float vector for each of {len(split)} images, got {list(vectors.shape)}"
            )
        self.split, self.vectors = split, vectors

    @property
    @override
    def images(self) -> Tensor | LazyImages:
        return self.split.images

    @property
    def labels(self) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The vectors, float `[n, d]`."""
        return self.vectors

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """The images at `indices` `[b]` and their vectors; what is random about the images is drawn anew."""
        return Batch(self.split.batch(indices, generator).images, self.vectors[indices])
