"""A transformer over patches, modulated by the noise level: DiT (Peebles & Xie 2023, "Scalable Diffusion Models").

Every block is x + gate * f((1 + scale) norm(x) + shift) for attention and for a perceptron, with scale, shift and gate
linear in the embedding and zero at the start ("adaLN-zero"), so that a new network is the identity between its first
and its last layer. Tokens are `[b, t, width]`; a token is a square of `patch` x `patch` pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.bounds import BelowOne, Depth, OptionalDepth, Width
from genzoo.nn.attention import Attention
from genzoo.nn.denoiser_network import DenoiserConfig, NoiseEmbedding
from genzoo.nn.layers import zeroed
from genzoo.nn.unet import image_shape, padded_to

LONGEST_PERIOD = 10_000


@dataclass(frozen=True)
class PatchTransformerConfig(DenoiserConfig):
    """The work grows with (side / patch)^2: 2 suits images of 8 to 32 pixels, 4 those of 64."""

    patch: Width = 2
    """Side in pixels of the squares that become tokens."""
    width: Width = 256
    """Features of a token."""
    blocks: OptionalDepth = 6
    """Blocks of attention and perceptron."""
    head_width: Width = 64
    """Features of an attention head, at least."""
    expansion: Depth = 4
    """Hidden width of the perceptrons as a multiple of `width`."""
    dropout: BelowOne = 0.0
    """Dropout at the end of each residual branch."""

    def build(self, shape: tuple[int, ...], out_channels: int, cond_width: int) -> nn.Module:
        """As `DenoiserConfig.build`; raises `GenzooError` for anything but images."""
        return PatchTransformer(self, image_shape(shape, "a patch transformer"), out_channels, cond_width)


class PatchTransformer(nn.Module):
    """`(x, c_noise, cond)` to `[b, out, h, w]`; sides that `patch` does not divide are padded and cropped."""

    def __init__(
        self,
        config: PatchTransformerConfig,
        shape: tuple[int, int, int],
        out_channels: int,
        cond_width: int,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        self.patch = min(config.patch, max(height, width))
        self.grid = (-(-height // self.patch), -(-width // self.patch))
        self.embed = NoiseEmbedding(config.width, cond_width)
        self.enter = nn.Linear(channels * self.patch**2, config.width)
        self.place = nn.Parameter(waves(self.grid, config.width))
        self.blocks = nn.ModuleList(AdaptiveBlock(config) for _ in range(config.blocks))
        self.norm = AdaptiveNorm(config.width)
        self.exit = zeroed(nn.Linear(config.width, out_channels * self.patch**2))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """Patches to tokens, blocks, tokens to patches."""
        height, width = x.shape[2:]
        patches = F.pixel_unshuffle(padded_to(x, self.patch), self.patch)
        tokens = self.enter(patches.flatten(2).mT) + self.place
        embedded = self.embed(c_noise, cond)
        for block in self.blocks:
            tokens = block(tokens, embedded)
        y = self.exit(self.norm(tokens, embedded)).mT.unflatten(2, self.grid)
        return F.pixel_shuffle(y, self.patch)[..., :height, :width]


class AdaptiveNorm(nn.Module):
    """(1 + scale) norm(x) + shift, scale and shift linear in the embedding and zero at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Tokens `[b, t, width]` and the embedding `[b, width]` to `[b, t, width]`."""
        scale, shift = self.modulation(embedded)[:, None].chunk(2, -1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class AdaptiveBlock(nn.Module):
    """Attention and a perceptron, each modulated, gated and residual; nothing at the start."""

    def __init__(self, config: PatchTransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_attention = AdaptiveNorm(width)
        self.attention = Attention(width, config.head_width)
        self.norm_mlp = AdaptiveNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.expansion * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.expansion * width, width),
        )
        self.gates = zeroed(nn.Linear(width, 2 * width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Tokens `[b, t, width]` and the embedding `[b, width]` to `[b, t, width]`."""
        gate_attention, gate_mlp = self.gates(embedded)[:, None].chunk(2, -1)
        y = self.attention(self.norm_attention(x, embedded))
        x = torch.addcmul(x, gate_attention, self.dropout(y))
        y = self.mlp(self.norm_mlp(x, embedded))
        return torch.addcmul(x, gate_mlp, self.dropout(y))


def waves(grid: tuple[int, int], width: int) -> Tensor:
    """Sines and cosines of the row and of the column, `[rows * columns, width]`: where learned positions begin.

    A quarter of the features each, at periods from 2 pi to 2 pi 10,000 places; what is left over is 0.
    """
    quarter = width // 4
    frequencies = LONGEST_PERIOD ** -(torch.arange(quarter) / max(1, quarter))
    rows, columns = (torch.arange(side)[:, None] * frequencies for side in grid)
    angles = torch.stack([rows[:, None].expand(*grid, -1), columns.expand(*grid, -1)])
    features = torch.cat([*angles.sin(), *angles.cos()], -1).flatten(0, 1)
    return F.pad(features, (0, width - 4 * quarter))
