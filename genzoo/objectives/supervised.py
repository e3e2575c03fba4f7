"""Embeddings with classes: pairs, triplets and whole sets of what belongs together.

D is the distance of two embeddings, p and n an anchor's positives and negatives:

    margin       1/2 max(D_p - m+, 0)^2  and  1/2 max(m - D_n, 0)^2         Hadsell et al. 2006, equation 4 (m+ = 0)
    triplet      max(D_ap - D_an + m, 0), D squared on the sphere           Schroff et al. 2015 (FaceNet), section 3.1
                 or softplus(D_ap - D_an)                                   Hermans et al. 2017, section 2
    tuplets      mean_p log(1 + sum_n exp(z.z_n - z.z_p))                   Sohn 2016, section 3: (N+1)-tuplets
    SupCon       mean_p -log(exp s_p / sum_{all but itself} exp s)          Khosla et al. 2020, equation 2 (L_out)

An anchor without a positive, or without a negative where the formula compares both, adds 0: a batch of one class, or
with no class twice, has a finite loss. Everything is computed in float32 or better, under autocast too.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple, final

import torch
from torch import Tensor
from torch.nn import functional as F

from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.objectives.contrastive import (
    PairObjective,
    cosines,
    directions,
    full,
    masked_logsumexp,
    require_positive,
)


class LabelledObjective(Configurable, ABC):
    """What embeddings with classes minimise."""

    @final
    def __call__(self, z: Tensor, labels: Tensor) -> Tensor:
        """Of embeddings `[n, d]` and whole numbers `[n]`, `[n]` per anchor in float32 or better.

        Raises `GenzooError` where the two do not go together.
        """
        if z.ndim != 2 or len(z) == 0:
            raise GenzooError(f"{type(self).__name__} takes embeddings [n, d], got {list(z.shape)}")
        if labels.shape != z.shape[:1] or labels.is_floating_point():
            raise GenzooError(
                f"{type(self).__name__} needs one class per embedding: {len(z)} whole numbers, "
                f"got {labels.dtype} {list(labels.shape)}"
            )
        same = labels[:, None] == labels
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        with torch.autocast(z.device.type, enabled=False):
            return self.of_classes(full(z), same & ~itself, ~same)

    @abstractmethod
    def of_classes(self, z: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """`[n]` of `[n, d]` and bool `[n, n]`: which are of the anchor's class, without itself, and which are not."""


@dataclass(frozen=True)
class Instances(PairObjective):
    """Any objective of classes without labels: each image is a class of its own, with its two views.

    `Instances(SupCon(t))` is `NTXent(t)`.
    """

    objective: LabelledObjective

    def of_views(self, a: Tensor, b: Tensor) -> Tensor:
        """The mean over both anchors of an image."""
        labels = torch.arange(len(a), device=a.device).repeat(2)
        return self.objective(torch.cat([a, b]), labels).view(2, -1).mean(0)


@dataclass(frozen=True)
class Margin(LabelledObjective):
    """The plain pairwise loss: classes are pulled together, others pushed beyond a margin.

    Among many classes most pairs are negative, and most of those soon lie beyond the margin, where they teach nothing;
    meanwhile every positive pair is pulled to one point. `balanced` gives positive and negative pairs half of the
    weight each, `positive_margin` stops the pull, `normalise` bounds distances by 2 and keeps the scale from running.
    How much it matters where positives are rare stands in `benchmarks/RESULTS.md`.
    """

    margin: float = 1.0
    """Distance beyond which negatives are left alone."""
    positive_margin: float = 0.0
    """Distance within which positives are left alone."""
    balanced: bool = False
    """The mean of both kinds' means, instead of the mean over all pairs."""
    normalise: bool = False
    """Distances between unit vectors."""

    def __post_init__(self) -> None:
        require_positive(self, "margin")
        if not 0 <= self.positive_margin < self.margin:
            raise GenzooError(f"positive_margin must lie in 0 .. margin, got {self.positive_margin}")

    def of_classes(self, z: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Their mean is the mean over all ordered pairs, or over both kinds."""
        distance = _root(squared_distances(directions(z) if self.normalise else z))
        pull = 0.5 * F.relu(distance - self.positive_margin).square() * positive
        push = 0.5 * F.relu(self.margin - distance).square() * negative
        n = len(z)
        if not self.balanced:
            return (pull + push).sum(1) / max(n - 1, 1)
        counts = positive.sum().clamp(min=1), negative.sum().clamp(min=1)
        return 0.5 * n * (pull.sum(1) / counts[0] + push.sum(1) / counts[1])


@dataclass(frozen=True)
class SupCon(LabelledObjective):
    """The log outside of the mean over positives (L_out, the better of the two)."""

    temperature: float = 0.1
    """Divides cosines."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")

    def of_classes(self, z: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Per anchor; with classes of two it is NT-Xent."""
        logits = cosines(z, z) / self.temperature
        surprise = masked_logsumexp(logits, positive | negative)[:, None] - logits
        return _mean_over(positive, surprise)


@dataclass(frozen=True)
class SupervisedNPair(LabelledObjective):
    """N-pair for any batch: each positive pair against all negatives of its anchor, by inner products.

    Lengths are free and act as inverse temperatures; `l2` |z|^2 keeps them in check.
    """

    l2: float = 0.001
    """Weight of the squared lengths."""

    def __post_init__(self) -> None:
        if not self.l2 >= 0:
            raise GenzooError(f"l2 of SupervisedNPair must be at least 0, got {self.l2}")

    def of_classes(self, z: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Per anchor, the mean over its positives."""
        products = z @ z.T
        others = masked_logsumexp(products, negative)[:, None]
        compared = positive & negative.any(1, keepdim=True)
        return _mean_over(compared, F.softplus(others - products)) + self.l2 * z.square().sum(1)


# --- triplets --------------------------------------------------------------------------------------------------


class Triplets(NamedTuple):
    """Places in the batch, long `[t]` each."""

    anchor: Tensor
    positive: Tensor
    negative: Tensor


class Mining(Configurable, ABC):
    """Which of a batch's triplets are looked at."""

    @abstractmethod
    def __call__(self, distances: Tensor, positive: Tensor, negative: Tensor) -> Triplets:
        """Of distances `[n, n]` and bool `[n, n]`: which are of the anchor's class, without itself, and which not."""


@dataclass(frozen=True)
class AllTriplets(Mining):
    """Every one: t grows with n^3."""

    def __call__(self, distances: Tensor, positive: Tensor, negative: Tensor) -> Triplets:
        """Hermans et al. 2017, equation 6 (batch all)."""
        anchor, near = positive.nonzero(as_tuple=True)
        pair, far = negative[anchor].nonzero(as_tuple=True)
        return Triplets(anchor[pair], near[pair], far)


@dataclass(frozen=True)
class SemiHard(Mining):
    """For each positive pair the nearest negative that lies farther than the positive; the farthest where none does.

    FaceNet, section 3.2: the hardest negatives of all lead to collapse early in training.
    """

    def __call__(self, distances: Tensor, positive: Tensor, negative: Tensor) -> Triplets:
        """By one sort of each anchor's negatives: memory grows with n^2."""
        sizes, order = distances.masked_fill(~negative, torch.inf).sort(1)
        place = torch.searchsorted(sizes, distances, right=True)  # of the first that is farther
        last = negative.sum(1, keepdim=True) - 1
        chosen = order.gather(1, place.minimum(last).clamp(min=0))
        anchor, near = (positive & (last >= 0)).nonzero(as_tuple=True)
        return Triplets(anchor, near, chosen[anchor, near])


@dataclass(frozen=True)
class BatchHard(Mining):
    """For each anchor its farthest positive and its nearest negative."""

    def __call__(self, distances: Tensor, positive: Tensor, negative: Tensor) -> Triplets:
        """Hermans et al. 2017, equation 5."""
        far = distances.masked_fill(~positive, -torch.inf).argmax(1)
        near = distances.masked_fill(~negative, torch.inf).argmin(1)
        (anchor,) = (positive.any(1) & negative.any(1)).nonzero(as_tuple=True)
        return Triplets(anchor, far[anchor], near[anchor])


@dataclass(frozen=True)
class Triplet(LabelledObjective):
    """A positive shall be nearer than a negative by a margin.

    The defaults are FaceNet's; batch-hard mining goes with plain distances (`squared=False, normalise=False`).
    """

    margin: float | None = 0.2
    """In units of the (squared) distance; None: softplus, which never rests."""
    mining: Mining = field(default_factory=SemiHard)
    """Which triplets."""
    squared: bool = True
    """Squared distances."""
    normalise: bool = True
    """Distances between unit vectors."""
    active_only: bool = False
    """The mean over triplets that violate the margin, instead of over all that were mined."""

    def __post_init__(self) -> None:
        if self.margin is not None:
            require_positive(self, "margin")

    def of_classes(self, z: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Their mean is the mean over triplets; the share of each is booked to its anchor."""
        distances = squared_distances(directions(z) if self.normalise else z)
        distances = distances if self.squared else _root(distances)
        anchor, near, far = self.mining(distances.detach(), positive, negative)
        excess = distances[anchor, near] - distances[anchor, far]
        losses = F.softplus(excess) if self.margin is None else F.relu(excess + self.margin)
        count = (losses > 0).sum() if self.active_only else losses.new_tensor(len(losses))
        total = torch.zeros_like(distances[0]).index_add(0, anchor, losses)
        return len(z) * total / count.clamp(min=1)


def squared_distances(z: Tensor) -> Tensor:
    """|z_i - z_j|^2 `[n, n]` of `[n, d]`, by one matrix product around the mean, which costs the fewest digits."""
    z = z - z.mean(0).detach()
    squares = z.square().sum(1)
    return (squares[:, None] + squares - 2 * z @ z.T).clamp(min=0)


def _root(squares: Tensor) -> Tensor:
    """The square root, without the gradient at 0 that is no number."""
    return squares.clamp(min=1e-12).sqrt()


def _mean_over(keep: Tensor, values: Tensor) -> Tensor:
    """The mean `[n]` along rows of `values` `[n, n]` over the entries `keep`; 0 where there are none."""
    return (values * keep).sum(1) / keep.sum(1).clamp(min=1)
