"""What becomes of a decoder's output distribution when samples are shown: a draw from it, or its mean.

A draw is a sample of the model, and what its likelihood is about. The mean leaves out the noise that the distribution
has around each sub-pixel on its own: what the latents say about the image, and no draw from P(x).
"""

from enum import Enum

import torch
from torch import Tensor

from genzoo.core.bounds import shown
from genzoo.core.errors import GenzooError
from genzoo.objectives.pixels import OutputDistribution, as_images


class Decoding(Enum):
    """How images come of the parameters of an output distribution."""

    DRAW = "draw"
    MEAN = "mean"

    @staticmethod
    def named(name: "Decoding | str") -> "Decoding":
        """By its name, "draw" or "mean". Raises `GenzooError` for any other.

        >>> Decoding.named("mean")
        <Decoding.MEAN: 'mean'>
        """
        found = next((d for d in Decoding if name is d or name == d.value), None)
        if found is None:
            raise GenzooError(f"decoding is draw or mean, got {shown(name)}")
        return found

    def images(
        self, distribution: OutputDistribution, params: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Integer images `[...]` from parameters `[..., p]`; a mean is rounded to the nearest level."""
        values = (
            distribution.mean(params)
            if self is Decoding.MEAN
            else distribution.sample(params, generator=generator)
        )
        return as_images(values, distribution.levels)
