"""Convolutional encoders and decoders for images of any size: residual blocks, halving and doubling stages.

No normalisation layers: each costs several passes over memory, and residual branches that start at zero train
without. The first halving comes at once and the last doubling is a pixel shuffle, so nothing wide runs at full
resolution. Maps are `[b, c, h, w]`; odd sizes are rounded up on the way down and cropped on the way up.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """(h, w) after `times` halvings, each rounded up.

    >>> halved((28, 7), 2)
    (7, 2)
    """
    height, width = size
    return -(-height // 2**times), -(-width // 2**times)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)) + bias(cond))), the last convolution zero at the start."""

    def __init__(
        self,
        width: int,
        cond_width: int = 0,
        hidden: int | None = None,
        kernel: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = hidden or width
        self.first = nn.Conv2d(width, hidden, kernel, padding=kernel // 2)
        self.cond = nn.Linear(cond_width, hidden, bias=False) if cond_width else None
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(hidden, width, kernel, padding=kernel // 2)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """`[b, c, h, w]` and the condition `[b, cond_width]` to `[b, c, h, w]`."""
        y = self.first(F.relu(x))
        if self.cond is not None:
            y = y + self.cond(cond)[..., None, None]
        return x + self.last(self.dropout(F.relu(y)))


class ConvEncoder(nn.Module):
    """Images' features `[b, f, h, w]` to `[b, widths[-1], h', w']`, halved once per width.

    The hidden layers of its blocks have the width divided by `narrowing`.
    """

    def __init__(
        self,
        features: int,
        widths: tuple[int, ...],
        blocks: int,
        cond_width: int = 0,
        dropout: float = 0.0,
        narrowing: int = 1,
    ) -> None:
        super().__init__()
        incoming = (features, *widths[:-1])
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(incoming, widths, strict=True)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                ResidualBlock(width, cond_width, max(1, width // narrowing), dropout=dropout)
                for _ in range(blocks)
            )
            for width in widths
        )
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """The last stage's features."""
        return self.maps(x, cond)[-1]

    def maps(self, x: Tensor, cond: Tensor | None = None) -> list[Tensor]:
        """The features of every stage, the finest first; `cond` is `[b, cond_width]` or None."""
        x, maps = x.contiguous(memory_format=torch.channels_last), []
        for down, blocks in zip(self.down, self.blocks, strict=True):
            x = down(_evened(x))
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                x = block(x, cond)
            maps.append(x)
        return maps


class ConvDecoder(nn.Module):
    """Features `[b, widths[-1], h', w']` to `[b, out, *size]`: the encoder's mirror, zero at the start."""

    def __init__(
        self,
        size: tuple[int, int],
        widths: tuple[int, ...],
        blocks: int,
        out: int,
        cond_width: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.sizes = [halved(size, n) for n in range(len(widths))]
        self.blocks = nn.ModuleList(
            nn.ModuleList(ResidualBlock(width, cond_width, dropout=dropout) for _ in range(blocks))
            for width in widths
        )
        outgoing = (out, *widths[:-1])
        self.up = nn.ModuleList(
            nn.Conv2d(b, 4 * a, 3, padding=1) for a, b in zip(outgoing, widths, strict=True)
        )
        nn.init.zeros_(self.up[0].weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.up[0].bias)  # pyright: ignore[reportArgumentType]
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Parameters or features at full size."""
        x = x.contiguous(memory_format=torch.channels_last)
        for n in reversed(range(len(self.up))):
            for block in self.blocks[n]:  # pyright: ignore[reportGeneralTypeIssues]
                x = block(x, cond)
            height, width = self.sizes[n]
            x = F.pixel_shuffle(self.up[n](x), 2)[..., :height, :width]
        return x


def _evened(x: Tensor) -> Tensor:
    """Zeros to the right and below where a side is odd."""
    height, width = x.shape[2:]
    return F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
