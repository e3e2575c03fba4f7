"""The scale of denoising models: integer images as real numbers in [-1, 1], and back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from genzoo.core.spec import DataSpec
from genzoo.objectives.dequantisation import UniformDequantisation, bin_centres, quantise
from genzoo.objectives.pixels import as_images


@dataclass(frozen=True)
class Scale:
    """Of data of `spec`; real-valued ones stay as they are."""

    spec: DataSpec

    def centres(self, images: Tensor) -> Tensor:
        """Integer images `[b, ...]` as the centres of their bins, float32."""
        return (
            images.float()
            if self.spec.levels is None
            else bin_centres(images, self.spec.levels, torch.float32)
        )

    def dequantise(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Integer images `[b, ...]` dequantised uniformly within their bins, float32."""
        if self.spec.levels is None:
            return images.float()
        return UniformDequantisation().draw(images, self.spec.levels, generator)[0].float()

    def images(self, x: Tensor) -> Tensor:
        """`x` `[b, ...]` as the images whose bins it lies in, of the type that the contract wants."""
        return as_images(x if self.spec.levels is None else quantise(x, self.spec.levels), self.spec.levels)
