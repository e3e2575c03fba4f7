"""A residual perceptron for vectors: points of toy densities, embeddings of an encoder.

Blocks are x + last(silu(first((1 + scale) norm(x) + shift))), scale and shift linear in the embedding of the noise
level and the condition; the last layers are zero at the start.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.bounds import BelowOne, Depth, OptionalDepth, Width
from genzoo.nn.denoiser_network import DenoiserConfig, NoiseEmbedding
from genzoo.nn.layers import zeroed


@dataclass(frozen=True)
class MLPConfig(DenoiserConfig):
    """Takes data of any shape, which it flattens; images deserve a network that knows what is near to what."""

    width: Width = 256
    """Features between the blocks."""
    blocks: OptionalDepth = 4
    """Residual blocks of two layers."""
    expansion: Depth = 2
    """Hidden width of the blocks as a multiple of `width`."""
    dropout: BelowOne = 0.0
    """Dropout inside the blocks."""

    def build(self, shape: tuple[int, ...], out_channels: int, cond_width: int) -> nn.Module:
        """As `DenoiserConfig.build`: vectors `[b, d]` become `[b, out_channels]`, as a rule with d of them."""
        return MLP(self, shape, out_channels, cond_width)


class MLP(nn.Module):
    """`(x [b, *shape], c_noise, cond)` to `[b, out_channels, *shape[1:]]`."""

    def __init__(self, config: MLPConfig, shape: tuple[int, ...], out_channels: int, cond_width: int) -> None:
        super().__init__()
        self.out_shape = (out_channels, *shape[1:])
        self.embed = NoiseEmbedding(config.width, cond_width)
        self.enter = nn.Linear(math.prod(shape), config.width)
        self.blocks = nn.ModuleList(PerceptronBlock(config) for _ in range(config.blocks))
        self.exit = zeroed(nn.Linear(config.width, math.prod(self.out_shape)))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Tensor | None = None) -> Tensor:
        """No normalisation at the end: predictions grow with the data, far out too."""
        embedded = self.embed(c_noise, cond)
        y = self.enter(x.flatten(1))
        for block in self.blocks:
            y = block(y, embedded)
        return self.exit(F.silu(y)).unflatten(1, self.out_shape)


class PerceptronBlock(nn.Module):
    """Two layers, modulated and residual, zero at the start."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.expansion * config.width
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.first = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.last = zeroed(nn.Linear(hidden, width))

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """`[b, width]` and the embedding `[b, width]` to `[b, width]`."""
        scale, shift = self.modulation(embedded).chunk(2, 1)
        y = F.silu(self.first(torch.addcmul(shift, self.norm(x), 1 + scale)))
        return x + self.last(self.dropout(y))
