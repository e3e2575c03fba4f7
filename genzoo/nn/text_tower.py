"""A small transformer over the bytes of a text.

Texts come as codes, long `[b, length]`: 0 where there is no byte, else 1 + byte (`genzoo.core.text.byte_codes`). A
learned first token stands before them, so that a text without bytes is one, too. Places without a byte are looked at
by nobody and count for nothing: a text's vector does not depend on the texts beside it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.core.bounds import Depth, OptionalDepth, Width
from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.core.text import BYTE_CODES, TEXT_LENGTH
from genzoo.nn.attention import attend, head_count
from genzoo.nn.layers import zeroed


@dataclass(frozen=True)
class TextTowerConfig(Configurable):
    """About half a million weights by default."""

    length: Width = TEXT_LENGTH
    """Bytes of a text that are read; longer ones are cut off before."""
    width: Width = 128
    """Features of a byte, and of the vector."""
    blocks: OptionalDepth = 3
    """Blocks of attention and perceptron."""
    head_width: Width = 32
    """Features of an attention head, at least."""
    expansion: Depth = 3
    """Hidden width of the perceptrons as a multiple of `width`."""

    def build(self) -> "TextTower":
        """Random weights; raises `GenzooError` where a field cannot be."""
        if min(self.length, self.width, self.head_width, self.expansion, self.blocks + 1) < 1:
            raise GenzooError(f"a text tower's sizes must be at least 1 and its blocks at least 0: {self}")
        return TextTower(self)


class TextTower(nn.Module):
    """Codes to vectors: the mean of a text's tokens after the last block, normalised."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.width, self.length = config.width, config.length
        self.byte = nn.Embedding(BYTE_CODES, config.width)
        self.first = nn.Parameter(0.02 * torch.randn(config.width))
        self.place = nn.Parameter(0.02 * torch.randn(config.length, config.width))
        nn.init.normal_(self.byte.weight, std=0.02)
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, codes: Tensor) -> Tensor:
        """Long `[b, length]` (or shorter) to float32 `[b, width]`; equal rows are worked out once.

        Raises `GenzooError` for codes of another kind.
        """
        if codes.ndim != 2 or codes.dtype != torch.long or codes.shape[1] > self.length:
            raise GenzooError(
                f"texts must be codes long [b, {self.length}], got {codes.dtype} {list(codes.shape)}"
            )
        rows, which = codes.unique(dim=0, return_inverse=True)
        return self._vectors(rows)[which]

    def _vectors(self, codes: Tensor) -> Tensor:
        there = codes > 0
        longest = int(there.sum(1).amax()) if codes.numel() else 0
        codes, there = codes[:, :longest], there[:, :longest]
        tokens = self.byte(codes) + self.place[:longest]
        tokens = torch.cat([self.first.expand(len(codes), 1, -1), tokens], 1)
        there = F.pad(there, (1, 0), value=True)
        for block in self.blocks:
            tokens = block(tokens, there)
        weights = there[..., None].float()
        tokens = self.norm(tokens.to(torch.promote_types(tokens.dtype, torch.float32)))
        return (tokens * weights).sum(1) / weights.sum(1)


class TextBlock(nn.Module):
    """Attention to the tokens that are there, then a perceptron; both residual, pre-normalised, zero at the start."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = head_count(width, config.head_width)
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zeroed(nn.Linear(width, width))
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.expansion * width),
            nn.GELU(approximate="tanh"),
            zeroed(nn.Linear(config.expansion * width, width)),
        )

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Tokens `[b, t, width]`, of which bool `[b, t]` are there, to the same."""
        y = attend(self.qkv(self.norm_attention(x)), self.heads, there[:, None, None])
        x = x + self.out(y)
        return x + self.mlp(self.norm_mlp(x))
