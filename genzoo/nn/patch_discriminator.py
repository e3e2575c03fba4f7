"""A discriminator of patches: one logit for each place of a coarse grid (Isola et al. 2017, PatchGAN, section 3.2.2).

What each logit sees is bounded (34 pixels a side with two stages and one block, 10 without blocks), so that it judges
texture and sharpness; what large images show as a whole is left to the loss that goes with it. Residual and without
normalisation, as the zoo's other discriminators.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.bounds import OptionalDepth, Width
from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.nn.gan_nets import he_started
from genzoo.nn.layers import zeroed
from genzoo.nn.resnet import ConvEncoder

SMALLEST = 4  # patches a side, where the image allows it: fewer would be no patches


@dataclass(frozen=True)
class PatchDiscriminatorConfig(Configurable):
    """Widths at a half, a quarter ... of the resolution; small images use the first ones only."""

    channels: tuple[Width, ...] = (48, 96)
    """Channels per resolution."""
    blocks: OptionalDepth = 1
    """Residual blocks per resolution."""

    def build(self, shape: tuple[int, ...], given: int = 0) -> "PatchDiscriminator":
        """For images of `shape` (c, h, w), judged beside `given` channels of the image that they answer to.

        Raises `GenzooError` for data that are no images.
        """
        if len(shape) != 3 or not self.channels:
            raise GenzooError(
                f"a discriminator of patches needs images and a width, these data have shape {shape}"
            )
        stages = max(1, (max(shape[1:]) // SMALLEST).bit_length() - 1)
        return PatchDiscriminator(shape[0] + given, self.channels[:stages], self.blocks)


class PatchDiscriminator(nn.Module):
    """`(x, given)` to logits `[b, h', w']` in float32, 0 at the start."""

    def __init__(self, channels: int, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.body = ConvEncoder(channels, widths, blocks)
        he_started(self)
        self.head = zeroed(nn.Conv2d(widths[-1], 1, 1))

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Images `[b, c, h, w]` and what they answer to, `[b, c', h, w]` or None."""
        return self.head(F.relu(self.maps(x, given)[-1]))[:, 0].float()

    def maps(self, x: Tensor, given: Tensor | None = None) -> list[Tensor]:
        """The features of every stage `[b, width, h', w']`, the finest first."""
        return self.body.maps(x if given is None else torch.cat([x, given.to(x)], 1))
