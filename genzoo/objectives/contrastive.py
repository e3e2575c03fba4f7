"""Two views of each image: which embeddings belong together, told from those of the rest of the batch.

With s = cosine / temperature, i and j different images, views a and b; sums over "all" run over both views:

    InfoNCE      -s(a_i, b_i) + log sum_j exp s(a_i, b_j)             van den Oord et al. 2018 (CPC), equation 4
    NT-Xent      -s(a_i, b_i) + log sum_{all but a_i} exp s           Chen et al. 2020 (SimCLR), equation 1
    decoupled    -s(a_i, b_i) + log sum_{all j != i} exp s            Yeh et al. 2022 (DCL), equation 6
    logistic     softplus(-s(a_i, b_i)) + mean_{all j != i} softplus(s)         SimCLR, table 2: NT-Logistic
    NCE          logistic on s - log k, summed over the k negatives   Gutmann & Hyvarinen 2012, section 2
    N-pair       log(1 + sum_j exp(a_i.b_j - a_i.b_i)), not cosines   Sohn 2016, section 3.2: N-pair-mc
    queue        InfoNCE of one positive against stored negatives     He et al. 2020 (MoCo), equation 1

Softmax forms have the chance level log(number of candidates). The smaller the batch, the more the positive dominates
its own denominator and the weaker the gradients are: decoupled leaves it out. Everything is computed in float32 or
better, under autocast too. A single image has no negatives: only the terms of its positive remain.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError


class PairObjective(Configurable, ABC):
    """What two views of the same images minimise; places pair them up."""

    @final
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Of embeddings `[n, d]` and `[n, d]`, `[n]` per image in float32 or better.

        Raises `GenzooError` where the two are no pairs.
        """
        check_pairs(a, b, type(self).__name__)
        with torch.autocast(a.device.type, enabled=False):
            return self.of_views(full(a), full(b))

    @abstractmethod
    def of_views(self, a: Tensor, b: Tensor) -> Tensor:
        """`[n]` of `[n, d]` and `[n, d]`, in float32 or better and outside of autocast."""


class QueueObjective(Configurable, ABC):
    """What queries minimise, given one key each and stored embeddings of other images."""

    @final
    def __call__(self, query: Tensor, key: Tensor, stored: Tensor) -> Tensor:
        """Of embeddings `[n, d]`, `[n, d]` and `[m, d]` (m may be 0), `[n]` in float32 or better.

        Raises `GenzooError` where the shapes do not go together.
        """
        check_pairs(query, key, type(self).__name__)
        if stored.ndim != 2 or stored.shape[1] != query.shape[1]:
            raise GenzooError(f"stored embeddings must be [m, {query.shape[1]}], got {list(stored.shape)}")
        with torch.autocast(query.device.type, enabled=False):
            return self.of_keys(full(query), full(key), full(stored))

    @abstractmethod
    def of_keys(self, query: Tensor, key: Tensor, stored: Tensor) -> Tensor:
        """`[n]` of `[n, d]`, `[n, d]` and `[m, d]`, in float32 or better and outside of autocast."""


# --- softmax over the batch ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InfoNCE(PairObjective):
    """Which of the other view's images is mine? Candidates are the n embeddings of the other view only.

    log n minus its mean is a lower bound of the views' mutual information in nats (CPC, section 2.3).
    """

    temperature: float = 0.1
    """Divides cosines."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")

    def of_views(self, a: Tensor, b: Tensor) -> Tensor:
        """Anchors are the first view's."""
        logits = cosines(a, b) / self.temperature
        return logits.logsumexp(1) - logits.diagonal()


@dataclass(frozen=True)
class NTXent(PairObjective):
    """Normalised, temperature-scaled cross-entropy over the other 2n - 1 embeddings of both views.

    The mean of both anchors of an image. Equal, or all orthogonal, embeddings give exactly log(2n - 1).
    """

    temperature: float = 0.5
    """Divides cosines."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")

    @override
    def of_views(self, a: Tensor, b: Tensor) -> Tensor:
        logits, positive, negative = _both_views(a, b, self.temperature)
        return _per_image(masked_logsumexp(logits, positive | negative) - logits[positive])


@dataclass(frozen=True)
class Decoupled(PairObjective):
    """NT-Xent whose denominator holds the negatives only: no coupling of the positive's pull to its own size.

    It can be negative.
    """

    temperature: float = 0.1
    """Divides cosines."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")

    @override
    def of_views(self, a: Tensor, b: Tensor) -> Tensor:
        logits, positive, negative = _both_views(a, b, self.temperature)
        return _per_image(masked_logsumexp(logits, negative) - logits[positive])


@dataclass(frozen=True)
class NPair(PairObjective):
    """Inner products instead of cosines: lengths are free and act as inverse temperatures, `l2` keeps them in check.

    log(1 + sum_j exp(a_i.b_j - a_i.b_i)) + l2 (|a_i|^2 + |b_i|^2) / 2 (Sohn 2016, sections 3.2 and 3.2.2: lengths are
    regularised because normalising them made optimisation hard). Each image is a class of its own here; see
    `genzoo.objectives.supervised.SupervisedNPair` for classes.
    """

    l2: float = 0.001
    """Weight of the squared lengths."""

    def __post_init__(self) -> None:
        if not self.l2 >= 0:
            raise GenzooError(f"l2 of NPair must be at least 0, got {self.l2}")

    def of_views(self, a: Tensor, b: Tensor) -> Tensor:
        """Anchors are the first view's."""
        logits = a @ b.T
        lengths = 0.5 * (a.square().sum(1) + b.square().sum(1))
        return logits.logsumexp(1) - logits.diagonal() + self.l2 * lengths


# --- one yes or no per pair ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Logistic(PairObjective):
    """Each pair by itself: same image or not? One positive weighs as much as all of its 2n - 2 negatives together."""

    temperature: float = 0.5
    """Divides cosines."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")

    def of_views(self, a: Tensor, b: Tensor) -> Tensor:
        """Symmetric in the views; equal weights of both answers."""
        logits, positive, negative = _both_views(a, b, self.temperature)
        count = max(len(logits) - 2, 1)
        doubts = (F.softplus(logits) * negative).sum(1) / count
        return _per_image(F.softplus(-logits[positive]) + doubts)


@dataclass(frozen=True)
class NCE(PairObjective):
    """Noise-contrastive estimation: the batch's k = 2n - 2 other embeddings as noise, weighed k to 1.

    softplus(log k - s+) + sum over negatives of softplus(s - log k). At the optimum s is the log of
    p(other view | view) / p(other view), normalised as it is. Sigmoid pairs with a learned bias are
    `genzoo.objectives.image_text.SigLIP`; its bias takes the place of -log k.
    """

    temperature: float = 0.1
    """Divides cosines."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")

    @override
    def of_views(self, a: Tensor, b: Tensor) -> Tensor:
        logits, positive, negative = _both_views(a, b, self.temperature)
        logits = logits - math.log(max(len(logits) - 2, 1))
        return _per_image(F.softplus(-logits[positive]) + (F.softplus(logits) * negative).sum(1))


# --- against a queue -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QueuedInfoNCE(QueueObjective):
    """One positive key against stored keys (MoCo); chance level log(1 + m).

    Neither keys nor what is stored get a gradient. While nothing is stored the loss is 0.
    """

    temperature: float = 0.1
    """Divides cosines."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")

    def of_keys(self, query: Tensor, key: Tensor, stored: Tensor) -> Tensor:
        """-s(q, k) + log(exp s(q, k) + sum_m exp s(q, stored_m))."""
        query, key = directions(query), directions(key.detach())
        positive = (query * key).sum(1, keepdim=True)
        logits = torch.cat([positive, query @ directions(stored.detach()).T], 1) / self.temperature
        return logits.logsumexp(1) - logits[:, 0]


# --- what all of them need -------------------------------------------------------------------------------------


def full(z: Tensor) -> Tensor:
    """`z` in float32 or better."""
    return z if z.dtype == torch.float64 else z.float()


def directions(z: Tensor) -> Tensor:
    """Unit vectors along the last dimension; vectors shorter than 1e-6 stay short, so that gradients stay finite."""
    return F.normalize(z, dim=-1, eps=1e-6)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """`[n, d]` and `[m, d]` to `[n, m]`."""
    return directions(a) @ directions(b).T


def masked_logsumexp(logits: Tensor, keep: Tensor) -> Tensor:
    """log sum exp along the second dimension over the entries `keep`, `[n, m]` to `[n]`; 0 where a row keeps none.

    >>> masked_logsumexp(torch.zeros(2, 3), torch.tensor([[True, True, False], [False] * 3]))
    tensor([0.6931, 0.0000])
    """
    lowest = torch.finfo(logits.dtype).min / 2  # finite: so is an empty row's gradient
    values = logits.masked_fill(~keep, lowest).logsumexp(1)
    return values.where(keep.any(1), torch.zeros_like(values))


def check_pairs(a: Tensor, b: Tensor, name: str) -> None:
    """Raises `GenzooError` unless both are embeddings `[n, d]` of the same shape, with n >= 1."""
    if a.ndim != 2 or b.ndim != 2 or len(a) == 0:
        raise GenzooError(f"{name} takes embeddings [n, d], got {list(a.shape)} and {list(b.shape)}")
    if a.shape != b.shape:
        raise GenzooError(
            f"{name} takes pairs: both sides must have one shape, got {list(a.shape)}, {list(b.shape)}"
        )


def require_positive(part: object, *names: str) -> None:
    """Raises `GenzooError` unless each of these fields of `part` is a finite number above 0."""
    for name in names:
        value = getattr(part, name)
        if not 0 < value < math.inf:
            raise GenzooError(f"{name} of {type(part).__name__} must be above 0 and finite, got {value}")


def _both_views(a: Tensor, b: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Logits `[2n, 2n]` of all embeddings against all, and who is whose positive, and negative: bool `[2n, 2n]`."""
    z = torch.cat([a, b])
    same_image = torch.eye(len(a), dtype=torch.bool, device=a.device).repeat(2, 2)
    itself = torch.eye(len(z), dtype=torch.bool, device=a.device)
    return cosines(z, z) / temperature, same_image & ~itself, ~same_image


def _per_image(values: Tensor) -> Tensor:
    """The mean `[n]` over both anchors of each image, `[2n]`."""
    return values.view(2, -1).mean(0)
