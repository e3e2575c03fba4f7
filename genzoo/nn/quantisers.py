"""Quantisers: features to codes and back, behind one small interface.

Codebook: the nearest of K learned vectors, moved by running averages of what falls to them (van den Oord et al.
2017, "VQ-VAE", equations 1-3 and appendix A.1); codes that die are set anew to features of the batch.
FSQ: each feature bounded and rounded to a few levels (Mentzer et al. 2023); nothing to learn, nothing to die.

Maps are `[b, width, h, w]`, codes long `[b, h, w]` in 0 .. codebook_size-1.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from genzoo.core.bounds import Many, NotNegative, Share, Width
from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError


class Quantised(NamedTuple):
    """`values` `[b, width, h, w]` with the straight-through gradient, `indices` long `[b, h, w]`, `loss` `[b]`."""

    values: Tensor
    indices: Tensor
    loss: Tensor


class Quantiser(nn.Module, ABC):
    """Features `[b, width, h, w]` to one of `codebook_size` codes per position, and codes to features."""

    codebook_size: int
    width: int

    @abstractmethod
    def distances(self, features: Tensor) -> Tensor:
        """Squared distance of each position to every code, `[b, h, w, codebook_size]`; float32 or better."""

    @abstractmethod
    def embed(self, indices: Tensor) -> Tensor:
        """Codes long `[b, h, w]` to features `[b, width, h, w]`."""

    @abstractmethod
    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> Quantised:
        """Quantises for training; `loss` keeps the encoder near its codes. Only this may change the codes."""

    def encode(self, features: Tensor) -> Tensor:
        """The nearest code of each position: long `[b, h, w]`."""
        return self.distances(features).argmin(-1)


def straight_through(features: Tensor, values: Tensor) -> Tensor:
    """`values`, whose gradient is handed to `features` as it is (Bengio et al. 2013)."""
    return features + (values - features).detach()


class Codebook(Quantiser):
    """K vectors that follow the features nearest to them; they are buffers, no optimiser touches them.

    In training, with n_k features of a batch nearest to code k and their sum s_k:
    N_k <- decay N_k + (1 - decay) n_k,  m_k <- decay m_k + (1 - decay) s_k,  e_k = m_k / N_k.
    A code whose N_k is below `revive_below` times the mean n is put on a feature of the batch first. All codes
    are dead at the start, so the first batch initialises them. With several processes each counts its own
    share of the batch and the first one's codebook is kept. With `normalise` the features are put on a sphere
    of radius sqrt(width) first (Yu et al. 2022, section 3.2): else their scale runs away from the codes, and few
    codes are used.
    """

    embedding: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        codebook_size: int,
        width: int,
        *,
        decay: float = 0.95,
        commitment: float = 0.25,
        revive_below: float = 0.1,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.codebook_size, self.width, self.normalise = codebook_size, width, normalise
        self.decay, self.commitment, self.revive_below = decay, commitment, revive_below
        self.register_buffer("embedding", torch.randn(codebook_size, width))
        self.register_buffer("counts", torch.zeros(codebook_size))
        self.register_buffer("sums", torch.zeros(codebook_size, width))

    def distances(self, features: Tensor) -> Tensor:
        """|z|^2 - 2 z e + |e|^2."""
        return _squared_distances(self._placed(features), self.embedding)

    @override
    def embed(self, indices: Tensor) -> Tensor:
        return rearrange(self.embedding[indices], "b h w d -> b d h w")

    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> Quantised:
        """The loss is `commitment` times |z - e|^2, summed over positions and features (equation 3)."""
        z = self._placed(features)
        if self.training:
            self._revive(z.detach().flatten(0, 2), generator)
        indices = _squared_distances(z.detach(), self.embedding).argmin(-1)
        values = self.embedding[indices]
        loss = self.commitment * (z - values).square().sum((1, 2, 3))
        if self.training:
            self._follow(z.detach().flatten(0, 2), indices.flatten())
        values = rearrange(straight_through(z, values), "b h w d -> b d h w")
        return Quantised(values.to(features.dtype), indices, loss)

    def _placed(self, features: Tensor) -> Tensor:
        """Features `[b, d, h, w]` as vectors `[b, h, w, d]`, on the sphere if so wished."""
        z = _positions(features)
        return F.normalize(z, dim=-1) * self.width**0.5 if self.normalise else z

    @torch.no_grad()
    def _revive(self, z: Tensor, generator: torch.Generator | None) -> None:
        """Dead codes take distinct features of the batch `z` `[m, width]`, and an average code's count."""
        device = z.device if generator is None else generator.device
        order = torch.randperm(len(z), generator=generator, device=device).to(z.device)
        candidates = z[order[torch.arange(self.codebook_size, device=z.device) % len(z)]].to(
            self.embedding.dtype
        )
        mean = len(z) / self.codebook_size
        dead = self.counts < self.revive_below * mean
        self.embedding.copy_(torch.where(dead[:, None], candidates, self.embedding))
        self.sums.copy_(torch.where(dead[:, None], candidates * mean, self.sums))
        self.counts.masked_fill_(dead, mean)

    @torch.no_grad()
    def _follow(self, z: Tensor, indices: Tensor) -> None:
        """The running averages take in features `z` `[m, width]` of the codes `indices` `[m]`."""
        z = z.to(self.sums.dtype)
        counts = torch.bincount(indices, minlength=self.codebook_size).to(z.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, indices, z)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        self.embedding.copy_(self.sums / self.counts.clamp_min(1e-12)[:, None])


class FSQ(Quantiser):
    """Finite scalar quantisation: feature i is bounded to `levels[i]` integers and rounded; codes = their product.

    The bound is f(z) = tanh(z + shift) (L - 1)(1 - eps)/2 - offset with offset 1/2 for even L, and the shift that
    makes f(0) = 0 (after Mentzer et al. 2023, section 3.1 and appendix A.1). Values are divided by floor(L/2), so
    they lie in [-1, 1]. There is no loss.

    Raises `ValueError` for fewer than 3 levels, which the bound cannot centre.
    """

    grid: Tensor
    basis: Tensor
    halves: Tensor
    spans: Tensor
    offsets: Tensor

    def __init__(self, levels: tuple[int, ...], eps: float = 1e-3) -> None:
        super().__init__()
        if not levels or min(levels) < 3:
            raise ValueError(f"FSQ needs at least 3 levels per feature, got {levels}")
        self.codebook_size, self.width, self.levels = math.prod(levels), len(levels), levels
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        sizes = torch.tensor(levels)
        buffers = {
            "basis": torch.tensor(basis),
            "halves": sizes // 2,
            "spans": (sizes - 1) * (1 - eps) / 2,
            "offsets": 0.5 * (sizes % 2 == 0),
        }
        buffers["grid"] = (
            torch.arange(self.codebook_size)[:, None] // buffers["basis"] % sizes - buffers["halves"]
        )
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def distances(self, features: Tensor) -> Tensor:
        """In units of levels, between the bounded features and the grid of codes."""
        return _squared_distances(self._bounded(_positions(features)), self.grid)

    def encode(self, features: Tensor) -> Tensor:
        """Rounding finds the nearest code at once."""
        return self._indices(self._bounded(_positions(features)).round())

    def embed(self, indices: Tensor) -> Tensor:
        """Digits of the code to features in [-1, 1]."""
        return rearrange(self.grid[indices].to(self.spans) / self.halves, "b h w d -> b d h w")

    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> Quantised:
        """Rounds with the straight-through gradient of the bound; the loss is zero."""
        bounded = self._bounded(_positions(features))
        rounded = bounded.detach().round()
        values = straight_through(bounded, rounded) / self.halves
        values = rearrange(values, "b h w d -> b d h w").to(features.dtype)
        return Quantised(values, self._indices(rounded), bounded.new_zeros(len(features)))

    def _bounded(self, z: Tensor) -> Tensor:
        shift = torch.atanh(self.offsets / self.spans)
        return torch.tanh(z + shift) * self.spans - self.offsets

    def _indices(self, rounded: Tensor) -> Tensor:
        return ((rounded.long() + self.halves) * self.basis).sum(-1)


@dataclass(frozen=True)
class QuantiserConfig(Configurable):
    """Which quantiser, and how fine."""

    kind: Literal["codebook", "fsq"] = "codebook"
    """Learned vectors (VQ), or rounded features (FSQ), which cannot collapse."""
    codebook_size: Many = 256
    """Vectors of the codebook."""
    width: Width = 16
    """Features of a vector of the codebook."""
    decay: Share = 0.95
    """Decay per step of the codebook's running averages."""
    commitment: NotNegative = 0.25
    """Weight of the squared distance between features and codes, beside nats."""
    revive_below: NotNegative = 0.1
    """Share of the mean use below which a code is dead and set anew."""
    normalise: bool = True
    """Codebook: features are put on a sphere before their nearest code is sought."""
    levels: tuple[Width, ...] = (8, 6, 5)
    """FSQ: levels per feature; the number of codes is their product."""

    def build(self) -> Quantiser:
        """Raises `GenzooError` for sizes that make no quantiser."""
        kinds: dict[str, Callable[[], Quantiser]] = {"codebook": self._codebook, "fsq": self._fsq}
        if self.kind not in kinds:
            raise GenzooError(f"unknown quantiser {self.kind!r}: choose {' or '.join(kinds)}")
        return kinds[self.kind]()

    def _codebook(self) -> Quantiser:
        if self.codebook_size < 2 or self.width < 1 or not 0 <= self.decay < 1:
            raise GenzooError(
                "a codebook needs at least 2 codes, 1 feature and a decay from 0 up to 1: "
                f"got codebook_size={self.codebook_size}, width={self.width}, decay={self.decay}"
            )
        return Codebook(
            self.codebook_size,
            self.width,
            decay=self.decay,
            commitment=self.commitment,
            revive_below=self.revive_below,
            normalise=self.normalise,
        )

    def _fsq(self) -> Quantiser:
        try:
            return FSQ(tuple(self.levels))
        except ValueError as error:
            raise GenzooError(str(error)) from error


def _positions(features: Tensor) -> Tensor:
    """`[b, d, h, w]` to `[b, h, w, d]`, at least float32: codes are chosen by small differences."""
    x = rearrange(features, "b d h w -> b h w d")
    return x if x.dtype == torch.float64 else x.float()


def _squared_distances(z: Tensor, codes: Tensor) -> Tensor:
    """|z|^2 - 2 z e + |e|^2 of vectors `[..., d]` and codes `[k, d]`: `[..., k]`."""
    with torch.autocast(z.device.type, enabled=False):  # bf16 would choose wrong codes
        e = codes.to(z.dtype)
        return z.square().sum(-1, keepdim=True) - 2 * z @ e.T + e.square().sum(-1)
