"""Networks of a hierarchical VAE: the top-down pass through groups of latents, over the maps of a `ConvEncoder`.

After the ladder VAE (Sonderby et al. 2016) and VDVAE (Child 2021): the top-down pass is the decoder and holds the
prior; the posterior of a group sees the decoder's state so far and the encoder's map of the same resolution.
Resolutions are halves of halves of the image's, the finest first in every list. Maps are `[b, c, h, w]`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.nn.latent_priors import gaussian_parameters
from genzoo.nn.layers import zeroed
from genzoo.nn.resnet import ResidualBlock, halved

NARROWING = 2
"""How much narrower than their stage the hidden layers of residual blocks are, in the encoder too."""
Noise = Callable[[Tensor], Tensor]
"""Standard normal numbers of the shape, type and device of a tensor."""


class Level(NamedTuple):
    """One resolution: `width` channels and `groups` groups of `latent_channels` channels each."""

    width: int
    latent_channels: int
    groups: int


class LadderOptions(NamedTuple):
    """`top`: length of the latent vector above the groups; what all residual blocks share."""

    top: int
    cond_width: int = 0
    dropout: float = 0.0


class Normal(NamedTuple):
    """Parameters of independent Gaussians, both `[b, latent_channels, h, w]`."""

    mean: Tensor
    log_scale: Tensor


class Group(NamedTuple):
    """The latents of one group `[b, latent_channels, h, w]`, drawn from `q`, and its prior `p`."""

    z: Tensor
    q: Normal
    p: Normal


class TopPosterior(nn.Module):
    """The coarsest map `[b, width, h, w]` to mean and log-scale `[b, latent_dim]` of the vector above it."""

    def __init__(self, width: int, size: tuple[int, int], options: LadderOptions) -> None:
        super().__init__()
        incoming = width * size[0] * size[1] + options.cond_width
        self.head = zeroed(nn.Linear(incoming, 2 * options.top))

    def forward(self, coarsest: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """`cond` is the embedded condition `[b, cond_width]` or None."""
        h = F.relu(coarsest).flatten(1)
        return gaussian_parameters(self.head(h if cond is None else torch.cat([h, cond.to(h.dtype)], 1)))


class StochasticBlock(nn.Module):
    """One group of latents in the top-down pass: prior, posterior, and the way back into the decoder's state.

    Prior and posterior are equal at the start. With `residual` the posterior is given relative to the prior,
    N(mean_p + shift, (scale_p * factor)^2) (Vahdat & Kautz 2020, NVAE, section 3.2).
    """

    def __init__(self, level: Level, options: LadderOptions, *, residual: bool) -> None:
        super().__init__()
        width, latent_channels, _ = level
        self.residual = residual
        self.prior = _residual_block(width, options)
        self.prior_head = zeroed(nn.Conv2d(width, 2 * latent_channels, 1))
        self.merge = nn.Conv2d(2 * width, width, 1)
        self.posterior = _residual_block(width, options)
        self.posterior_head = zeroed(nn.Conv2d(width, 2 * latent_channels, 1))
        self.inject = nn.Conv2d(latent_channels, width, 1)
        self.after = _residual_block(width, options)

    def forward(
        self, state: Tensor, seen: Tensor | None, cond: Tensor | None, noise: Noise
    ) -> tuple[Tensor, Group]:
        """The decoder's state `[b, width, h, w]` before and after; z follows q where `seen` is given, else p."""
        state = self.prior(state, cond)
        p = Normal(*gaussian_parameters(self.prior_head(F.relu(state))))
        q = p if seen is None else self._posterior(state, seen, p, cond)
        z = q.mean + q.log_scale.exp() * noise(q.mean)
        return self.after(state + self.inject(z), cond), Group(z, q, p)

    def _posterior(self, state: Tensor, seen: Tensor, p: Normal, cond: Tensor | None) -> Normal:
        h = self.posterior(self.merge(torch.cat([state, seen], 1)), cond)
        mean, log_scale = gaussian_parameters(self.posterior_head(F.relu(h)))
        if self.residual:
            return Normal(p.mean + mean, p.log_scale + log_scale)
        return Normal(mean, log_scale)


class TopDown(nn.Module):
    """From a latent vector through all groups of latents to `out` maps at the image's size, 0 at the start."""

    def __init__(
        self,
        size: tuple[int, int],
        levels: tuple[Level, ...],
        out: int,
        head: int,
        options: LadderOptions,
        *,
        residual: bool,
    ) -> None:
        super().__init__()
        self.sizes = [halved(size, n) for n in range(len(levels) + 1)]
        self.map = (levels[-1].width, *self.sizes[-1])
        self.start = nn.Linear(options.top, math.prod(self.map))
        self.blocks = nn.ModuleList(
            nn.ModuleList(StochasticBlock(level, options, residual=residual) for _ in range(level.groups))
            for level in levels
        )
        widths = [level.width for level in levels]
        self.up = nn.ModuleList(
            nn.Conv2d(b, 4 * a, 3, padding=1) for a, b in zip([head, *widths[:-1]], widths, strict=True)
        )
        self.last = zeroed(nn.Conv2d(head, out, 3, padding=1))
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(
        self,
        top: Tensor,
        seen: list[Tensor] | None,
        cond: Tensor | None,
        *,
        informed: int | None = None,
        noise: Noise,
    ) -> tuple[Tensor, list[Group]]:
        """`[n, out, *size]` and the groups, the coarsest first, from the latent vectors `top` `[n, d]`.

        `seen` is the bottom-up pass's result, None to draw from the prior; the first `informed` groups (all
        unless given) follow the posterior, those after them the prior.
        """
        state = self.start(top).view(len(top), *self.map).contiguous(memory_format=torch.channels_last)
        groups: list[Group] = []
        for level in reversed(range(len(self.blocks))):
            for block in self.blocks[level]:  # pyright: ignore[reportGeneralTypeIssues]
                knows = seen is not None and (informed is None or len(groups) < informed)
                state, group = block(state, seen[level] if knows and seen else None, cond, noise)
                groups.append(group)
            height, width = self.sizes[level]
            state = F.pixel_shuffle(self.up[level](state), 2)[..., :height, :width]
        return self.last(F.relu(state)), groups


def _residual_block(width: int, options: LadderOptions) -> ResidualBlock:
    """A bottleneck."""
    hidden = max(1, width // NARROWING)
    return ResidualBlock(width, options.cond_width, hidden=hidden, dropout=options.dropout)
