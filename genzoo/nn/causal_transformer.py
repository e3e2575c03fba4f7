"""Causal transformer over groups of pixels (or codes) in raster order, with a key-value cache.

Decoder-only transformer with pre-normalisation (Radford et al. 2019; over pixels: Parmar et al. 2018,
Chen et al. 2020 "iGPT"). A token is a group; its input are the groups around it that come before it, because
neighbours say most, and attention reaches the rest. Heads are 64 wide: narrow heads are slow on every processor
measured.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

KeyValues = tuple[Tensor, Tensor]
"""Keys and values `[b, heads, t, head width]` of the tokens so far."""

NEIGHBOURS = ((0, -1), (0, -2), *((row, column) for row in (-1, -2) for column in range(-2, 3)))
"""Offsets (rows, columns) of the groups that a token is made of."""


class CausalAttention(nn.Module):
    """Multi-head self-attention in which a token sees itself and those before it."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.heads = max(1, width // head_width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, cache: KeyValues | None = None) -> tuple[Tensor, KeyValues]:
        """`[b, t, width]`; with a cache `x` is the one token that follows the cached ones."""
        q, k, v = rearrange(self.qkv(x), "b t (n h d) -> n b h t d", n=3, h=self.heads)
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        return self.out(rearrange(y, "b h t d -> b t (h d)")), (k, v)


class TransformerBlock(nn.Module):
    """Attention, then a two-layer perceptron, each residual, pre-normalised and zero at the start."""

    def __init__(self, width: int, head_width: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = CausalAttention(width, head_width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, expansion * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(expansion * width, width),
        )
        self.dropout = nn.Dropout(dropout)
        for last in (self.attention.out, self.mlp[2]):
            nn.init.zeros_(last.weight)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(last.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, cache: KeyValues | None = None) -> tuple[Tensor, KeyValues]:
        """`[b, t, width]` and the cache of the tokens before, to the same, grown."""
        y, grown = self.attention(self.norm_attention(x), cache)
        x = x + self.dropout(y)
        return x + self.dropout(self.mlp(self.norm_mlp(x))), grown


class CausalTransformer(nn.Module):
    """Features of each group's predecessors in raster order: `[b, h, w, f]` to `[b, h, w, width]`."""

    def __init__(
        self,
        grid: tuple[int, int],
        features: int,
        *,
        width: int,
        blocks: int,
        head_width: int = 64,
        expansion: int = 3,
        cond_width: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width = width
        self.enter = nn.Linear(len(NEIGHBOURS) * features, width)
        self.place = nn.Parameter(0.02 * torch.randn(grid[0] * grid[1], width))
        self.cond = nn.Linear(cond_width, width, bias=False) if cond_width else None
        self.blocks = nn.ModuleList(
            TransformerBlock(width, head_width, expansion, dropout) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """Group features `[b, h, w, f]`, condition `[b, cond_width]` or None, to contexts `[b, h, w, width]`."""
        h, w = x.shape[1:3]
        padded = F.pad(x, (0, 0, 2, 2, 2, 0))
        around = [padded[:, 2 + i : 2 + i + h, 2 + j : 2 + j + w] for i, j in NEIGHBOURS]
        tokens = self._tokens(rearrange(torch.cat(around, -1), "b h w f -> b (h w) f"), self.place, cond)
        for block in self.blocks:
            tokens, _ = block(tokens)
        return rearrange(self.norm(tokens), "b (h w) d -> b h w d", h=x.shape[1])

    def stepper(self, x: Tensor, cond: Tensor | None) -> "CausalTransformerStepper":
        """Contexts one group at a time, read off features `x` `[b, h, w, f]` that the caller fills in as it goes."""
        return CausalTransformerStepper(self, x, cond)

    def _tokens(self, around: Tensor, place: Tensor, cond: Tensor | None) -> Tensor:
        tokens = self.enter(around) + place
        return tokens if self.cond is None else tokens + self.cond(cond)[:, None]


class CausalTransformerStepper:
    """Walks over the groups in raster order; keeps each block's keys and values."""

    def __init__(self, net: CausalTransformer, x: Tensor, cond: Tensor | None) -> None:
        self.net, self.x, self.cond = net, x, cond
        b, _, _, width_in = x.shape
        self.edge = x.new_zeros(b, 1, width_in)
        empty = x.new_zeros(b, net.blocks[0].attention.heads, 0, net.width // net.blocks[0].attention.heads)  # pyright: ignore
        self.caches: list[KeyValues] = [(empty, empty)] * len(net.blocks)

    def context(self, i: int, j: int) -> Tensor:
        """The context `[b, width]` of group (i, j); to be called for every group, in raster order."""
        t = i * self.x.shape[2] + j
        around = torch.cat([self._group(i + row, j + column) for row, column in NEIGHBOURS], -1)
        token = self.net._tokens(around, self.net.place[t : t + 1], self.cond)
        for n, block in enumerate(self.net.blocks):
            token, self.caches[n] = block(token, self.caches[n])
        return self.net.norm(token)[:, 0]

    def _group(self, i: int, j: int) -> Tensor:
        inside = i >= 0 and 0 <= j < self.x.shape[2]
        return self.x[:, i, j][:, None] if inside else self.edge
