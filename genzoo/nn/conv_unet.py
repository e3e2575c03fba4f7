"""A U-Net without normalisation, made for processors: wide convolutions at low resolution, few passes over memory.

Pixels are folded into channels at once, so that nothing wide runs at full resolution; a few narrow convolutions
there add what is fine. Residual branches start at zero and their inputs are scaled by the noise level, which does what
normalisation does in the U-Nets of DDPM and costs a fraction. Maps are `[b, c, h, w]`, channels last in memory.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.bounds import BelowOne, OptionalDepth, Width
from genzoo.core.errors import GenzooError
from genzoo.nn.attention import attend
from genzoo.nn.denoiser_network import DenoiserConfig, NoiseEmbedding
from genzoo.nn.layers import zeroed
from genzoo.nn.resnet import halved

HEAD_WIDTH = 64
SMALLEST = 4  # pixels of the longer side, at the lowest resolution


@dataclass(frozen=True)
class ConvUNetConfig(DenoiserConfig):
    """Widths per resolution, the first at full resolution."""

    fine: Width = 32
    """Channels at full resolution."""
    channels: tuple[Width, ...] = (96, 192)
    """Channels at a half, a quarter ... of the resolution."""
    blocks: OptionalDepth = 2
    """Residual blocks per resolution on the way down, and again on the way up."""
    attention: OptionalDepth = 1
    """Attention layers at the lowest resolution."""
    dropout: BelowOne = 0.0
    """Dropout inside the residual blocks."""

    def build(self, shape: tuple[int, ...], out_channels: int, cond_width: int) -> nn.Module:
        """Sides are rounded up on the way down; a small image has fewer resolutions."""
        if len(shape) != 3:
            raise GenzooError(f"a U-Net needs images, these data have shape {shape}: use another network")
        return ConvUNet(self, shape, out_channels, cond_width)


UNETS = {
    "tiny": ConvUNetConfig(fine=16, channels=(32, 64), blocks=1, attention=0),
    "small": ConvUNetConfig(fine=32, channels=(64, 128)),
    "base": ConvUNetConfig(fine=48, channels=(128, 256), blocks=3),
    "large": ConvUNetConfig(fine=64, channels=(192, 384, 512), blocks=4, attention=2),
}
"""The presets' networks by the size of the model."""


class ModulatedBlock(nn.Module):
    """x + conv(silu((1 + scale) conv(silu(x)) + shift)), scale and shift from the embedding."""

    def __init__(self, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.dropout = nn.Dropout(dropout)
        self.last = zeroed(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """`[b, c, h, w]` and `[b, embedding]` to `[b, c, h, w]`."""
        scale, shift = self.modulation(embedded)[..., None, None].chunk(2, 1)
        y = torch.addcmul(shift, self.first(F.silu(x)), 1 + scale)
        return x + self.last(self.dropout(F.silu(y)))


class SpatialAttention(nn.Module):
    """Self-attention over all places, residual and zero at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD_WIDTH)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """`[b, c, h, w]` to the same."""
        tokens = x.flatten(2).mT
        y = attend(self.qkv(self.norm(tokens)), self.heads)
        return x + self.out(y).mT.view_as(x)


class ConvUNet(nn.Module):
    """`(x, c_noise, cond)` to `[b, out, h, w]`."""

    def __init__(
        self, config: ConvUNetConfig, shape: tuple[int, ...], out_channels: int, cond_width: int
    ) -> None:
        super().__init__()
        channels, *size = shape
        widths = (config.fine, *config.channels)
        sizes = [halved((size[0], size[1]), n) for n in range(len(widths))]
        # below 4x4 nothing is left to see
        self.sizes = [size for n, size in enumerate(sizes) if n == 0 or max(size) >= SMALLEST]
        widths = widths[: len(self.sizes)]
        embedding = 2 * max(widths)
        self.embed = NoiseEmbedding(embedding, cond_width)
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(4 * a, b, 3, padding=1) for a, b in pairs)
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 3, padding=1) for a, b in pairs)
        counts = [config.blocks if n or len(widths) == 1 else 1 for n in range(len(widths))]

        def stage(width: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(ModulatedBlock(width, embedding, config.dropout) for _ in range(count))

        self.descent = nn.ModuleList(
            stage(w, n if i else 0) for i, (w, n) in enumerate(zip(widths, counts, strict=True))
        )
        self.ascent = nn.ModuleList(stage(w, n) for w, n in zip(widths, counts, strict=True))
        self.attention = nn.ModuleList(SpatialAttention(widths[-1]) for _ in range(config.attention))
        self.exit = zeroed(nn.Conv2d(widths[0], out_channels, 3, padding=1))
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """Down, across, up."""
        embedded = self.embed(c_noise, cond)
        x, skips = self.enter(x.contiguous(memory_format=torch.channels_last)), []
        for level, blocks in enumerate(self.descent):
            if level:
                x = self.down[level - 1](_folded(x))
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                x = block(x, embedded)
            skips.append(x)
        for layer in self.attention:
            x = layer(x)
        for level in reversed(range(len(skips))):
            for block in self.ascent[level]:  # pyright: ignore[reportGeneralTypeIssues]
                x = block(x, embedded)
            if level:
                height, width = self.sizes[level - 1]
                x = F.pixel_shuffle(self.up[level - 1](x), 2)[..., :height, :width] + skips[level - 1]
        return self.exit(F.silu(x))


def _folded(x: Tensor) -> Tensor:
    """Each 2x2 block of pixels as channels, zeros beyond the right and lower edges: `[b, 4c, h', w']`."""
    height, width = x.shape[2:]
    return F.pixel_unshuffle(F.pad(x, (0, width % 2, 0, height % 2)), 2)
