"""Counting the modes that samples cover, cheaply enough for a training run, and with no training of its own.

With class labels the modes are the classes, and an image belongs to the class of the nearest of some thousand reference
images. Without (or with very many classes) they are the clusters that k-means finds among the references, as for
the NDB score (Richardson & Weiss 2018, section 2). Distances are Euclidean in pixels, averaged over blocks where
images are large; their scale does not matter. Nearest neighbours err on natural images, so the data's own shares are
measured the same way. This notices modes that are missing and a generator that has collapsed; it says nothing of
quality.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from genzoo.core.errors import GenzooError
from genzoo.core.random import seeded
from genzoo.core.spec import Images

LEAST_SHARE = 0.2
"""Of a mode's fair share of the samples, for it to count as covered."""
LEAST_DISPERSION = 0.3
"""Mean distance between samples, in terms of that between data, below which a sampler has collapsed."""
CLUSTERS = 20
MOST_CLASSES = 50
"""Of more classes a few hundred samples cannot hit each: clusters are counted in their place."""
MOST_FEATURES = 1024
PAIRED = 500  # items among which distances are averaged


@final
@dataclass(frozen=True)
class Coverage:
    """What samples hit of the modes of the data.

    `divergence` is KL(samples || data) in nats, of shares of modes: 0 where they agree, ln(m / k) for a sampler that
    hits k of m equally likely modes evenly, infinite where no sample hits any. Of n perfect samples it is about
    (m - 1) / (2 n). `dispersion` is the mean distance between two samples over that between two data: 1 where they
    agree, near 0 for a generator that draws one image, None for data that do not vary at all.
    """

    covered: int
    modes: int
    divergence: float
    dispersion: float | None = 1.0

    @classmethod
    def of(
        cls,
        counts: Tensor,
        shares: Tensor,
        *,
        samples: int | None = None,
        dispersion: float | None = 1.0,
        least_fraction: float = LEAST_SHARE,
    ) -> Self:
        """From how many samples hit each mode, `[m]`, and the data's shares of the modes, `[m]`.

        A mode is covered by `least_fraction` of its fair part of all `samples`, and at least one; `samples` is more
        than the sum of the counts where some lie in no mode. With `least_fraction=0` a single sample will do.
        """
        counts, shares = counts.double().cpu(), (shares.double() / shares.double().sum()).cpu()
        hits = counts.sum()
        found = counts / hits.clamp(min=1)
        fair = shares * (int(hits) if samples is None else samples)
        divergence = (torch.xlogy(found, found) - torch.xlogy(found, shares)).sum().item()
        return cls(
            covered=int(((counts > 0) & (counts >= least_fraction * fair)).sum()),
            modes=len(shares),
            divergence=max(0.0, divergence) if hits > 0 else math.inf,
            dispersion=dispersion,
        )

    @property
    def collapsed(self) -> bool:
        """Fewer than half of the modes, or samples less than 0.3 times as far apart as data.

        Both are far from what a sampler shows that merely draws badly; before training, every generator is collapsed.
        At least ten samples a mode are needed for the first half to mean anything.
        """
        return 2 * self.covered < self.modes or (
            self.dispersion is not None and not self.dispersion >= LEAST_DISPERSION
        )

    def __str__(self) -> str:
        return f"modes {self.covered}/{self.modes}"


@final
class Modes:
    """The modes of some data: references `[r, d]`, which mode each belongs to `[r]`, and the modes' shares `[m]`."""

    def __init__(
        self, shape: torch.Size, references: Tensor, members: Tensor, shares: Tensor, dispersion: float
    ) -> None:
        self.shape, self.references, self.members, self.shares = shape, references, members, shares
        self.dispersion = dispersion
        """The mean distance between two data."""

    @classmethod
    def of(cls, split: Images, *, seed: int = 0, references: int = 2000, clusters: int = CLUSTERS) -> "Modes":
        """The modes of `split`, from at most so many `references` chosen by `seed`.

        They are the classes where there are 2 to 50 among them, else so many `clusters`, fewer where there are not as
        many different references. Raises `GenzooError` for fewer than two images.
        """
        chosen = torch.randperm(len(split), generator=seeded("cpu", "modes", seed))[:references].sort().values
        if len(chosen) < 2 or clusters < 1:
            raise GenzooError(f"modes are counted from two or more images, got {len(chosen)}: give more data")
        images = split.images[chosen].cpu()
        shape, features = images.shape[1:], _features(images)
        dispersion = _dispersion(features, seed)
        labels = None if split.labels is None or split.labels.ndim != 1 else split.labels.cpu()[chosen]
        if labels is not None and 2 <= len(labels.unique()) <= MOST_CLASSES:
            members = labels.unique(return_inverse=True)[1]
            return cls(shape, features, members, _own_shares(features, members), dispersion)
        centres, members = _clustered(features, clusters, seed)
        shares = torch.bincount(members, minlength=len(centres)).double() / len(members)
        return cls(shape, centres, torch.arange(len(centres)), shares, dispersion)

    def __len__(self) -> int:
        return len(self.shares)

    def members_of(self, images: Tensor) -> Tensor:
        """The mode long `[n]` of each image `[n, ...]`, that of the nearest reference.

        Raises `GenzooError` for images of another shape than the data's.
        """
        if images.shape[1:] != self.shape:
            raise GenzooError(
                f"samples of shape {list(images.shape[1:])} do not fit data of {list(self.shape)}"
            )
        return self._nearest(_features(images.cpu()))

    def count(self, images: Tensor) -> Coverage:
        """What `images` `[n, ...]`, integers or float as the data, hit; some hundred are enough for ten modes.

        Samples that are not finite hit nothing. Raises `GenzooError` for images of another shape than the data's.
        """
        finite = images.cpu()[images.cpu().flatten(1).isfinite().all(1)]
        counts = torch.bincount(self.members_of(finite), minlength=len(self))
        # data that do not vary give nothing to hold samples against
        dispersion = _dispersion(_features(finite), 0) / self.dispersion if self.dispersion > 0 else None
        return Coverage.of(counts, self.shares, samples=len(images), dispersion=dispersion)

    def _nearest(self, features: Tensor) -> Tensor:
        return self.members[torch.cdist(features, self.references).argmin(1)]


def _features(images: Tensor) -> Tensor:
    """`[n, ...]` to float32 `[n, d]`: large images are averaged over blocks, so that d is at most about a thousand."""
    x = images.float()
    block = math.ceil((math.prod(x.shape[1:]) / MOST_FEATURES) ** 0.5)
    if x.ndim == 4 and block > 1:
        x = F.avg_pool2d(x, block, ceil_mode=True)
    return x.flatten(1)


def _own_shares(features: Tensor, members: Tensor) -> Tensor:
    """The share of each mode `[m]` among references, classified by their nearest other one; none is left without
    any."""
    distances = torch.cdist(features, features).fill_diagonal_(torch.inf)
    counts = torch.bincount(members[distances.argmin(1)], minlength=int(members.max()) + 1).double()
    counts = counts.clamp(min=1)
    return counts / counts.sum()


def _clustered(features: Tensor, clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    """The centres `[k, d]` of k-means clusters, none of them empty, and whose each row of `features` is."""
    from sklearn.cluster import KMeans

    clusters = min(clusters, len(features.unique(dim=0)))
    found = KMeans(clusters, n_init=1, max_iter=50, random_state=seed)  # pyright: ignore[reportArgumentType]
    found.fit(features.numpy())
    centres = torch.from_numpy(found.cluster_centers_).float()
    members = torch.cdist(features, centres).argmin(1)
    used, members = members.unique(return_inverse=True)
    return centres[used], members


def _dispersion(features: Tensor, seed: int) -> float:
    """The mean distance between two different rows of `[n, d]`, among some of them; 0 for fewer than two."""
    if len(features) < 2:
        return 0.0
    some = torch.randperm(len(features), generator=seeded("cpu", "spread", seed))[:PAIRED]
    return F.pdist(features[some]).mean().item()
