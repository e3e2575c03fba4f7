"""Crops of an image that predict each other's soft cluster: SwAV, DINO, and what keeps clusters from collapsing.

Scores `[b, k]` of a crop over k prototypes; q the target that crop i gives, p = softmax(scores / temperature):

    loss = mean over pairs i != v of -sum_k q_i log p_v          SwAV (Caron et al. 2020), equations 1, 2 and 6
                                                                 DINO (Caron et al. 2021), equations 2 and 3
    SwAV     q: Sinkhorn-Knopp on the network's own scores, each prototype gets an equal share of the batch
    DINO     q: softmax((scores - centre) / small temperature), of a momentum copy's scores
    DINOv2   Sinkhorn-Knopp of a momentum copy's scores, and KoLeo (Oquab et al. 2023, section 4)

The first crops are the large (global) ones, which give targets; all crops predict. Everything is computed in float32 or
better, under autocast too. The queue of embeddings, the momentum copy and the centre are in `genzoo.nn.momentum_copy`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from genzoo.core.config import Configurable
from genzoo.core.errors import GenzooError
from genzoo.objectives.contrastive import cosines, directions, full, require_positive


class Targets(Configurable, ABC):
    """How scores become soft assignments."""

    @abstractmethod
    def __call__(self, scores: Tensor, centre: Tensor | None = None) -> Tensor:
        """Of scores `[m, k]` and the mean score so far `[k]`, probabilities `[m, k]` without a gradient."""


@dataclass(frozen=True)
class Sinkhorn(Targets):
    """Equal shares: the entropic optimal transport of the batch to the prototypes. The centre plays no part."""

    epsilon: float = 0.05
    """Strength of the entropy; the smaller, the harder the assignment."""
    iterations: int = 3
    """Rounds of Sinkhorn-Knopp; shares of prototypes are only as equal as these make them."""

    def __post_init__(self) -> None:
        require_positive(self, "epsilon")
        if self.iterations < 1:
            raise GenzooError(f"Sinkhorn needs 1 or more iterations, got {self.iterations}")

    def __call__(self, scores: Tensor, centre: Tensor | None = None) -> Tensor:
        """SwAV, equations 3 to 5."""
        return sinkhorn(scores, self.epsilon, self.iterations)


@dataclass(frozen=True)
class Centering(Targets):
    """Centring keeps one prototype from winning always, sharpening keeps all from drawing: both are needed.

    Without a centre (None) nothing is subtracted.
    """

    temperature: float = 0.04
    """The teacher's; well below the student's."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")

    def __call__(self, scores: Tensor, centre: Tensor | None = None) -> Tensor:
        """DINO, equation 1 and algorithm 1."""
        scores = full(scores.detach())
        scores = scores if centre is None else scores - centre.detach().to(scores)
        return torch.softmax(scores / self.temperature, 1)


@dataclass(frozen=True)
class CrossViewLoss(Configurable):
    """Swapped prediction: every crop predicts the targets of the other crops.

    The defaults are SwAV's, with the teacher's scores being the student's own; `CrossViewLoss(Centering())` is DINO's.
    """

    targets: Targets = field(default_factory=Sinkhorn)
    """Of the teacher's scores."""
    temperature: float = 0.1
    """Of the predictions: divides scores."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")

    def __call__(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], centre: Tensor | None = None
    ) -> Tensor:
        """`[b]` per image, the mean over pairs of crops, in float32 or better.

        `student` holds scores `[b, k]` per crop, large crops first; `teacher` those of the large ones, in this order,
        `[m, k]` with m >= b: rows beyond b (of a queue of former images, say) only take part in the assignment.
        Targets carry no gradient. Raises `GenzooError` where the crops do not go together.
        """
        _check_crops(student, teacher)
        b, own = len(student[0]), len(teacher)
        with torch.autocast(student[0].device.type, enabled=False):
            q = torch.stack([self.targets(scores, centre)[:b] for scores in teacher])
            log_p = torch.stack([F.log_softmax(full(scores) / self.temperature, 1) for scores in student])
            losses = -torch.einsum("ibk,vbk->ivb", q.to(log_p), log_p)
        same_crop = torch.eye(own, len(student), dtype=torch.bool, device=losses.device)
        return losses.masked_fill(same_crop[..., None], 0.0).sum((0, 1)) / (own * (len(student) - 1))


@dataclass(frozen=True)
class KoLeo:
    """-log of the distance to the nearest other direction in the batch: spreads embeddings over the sphere.

    Sablayrolles et al. 2019, section 3.3, after Kozachenko & Leonenko's estimate of the entropy; DINOv2 adds it with
    weight 0.1 to each large crop's embedding. Equal embeddings pay -log `eps` and have no gradient.
    """

    eps: float = 1e-8
    """Added to distances."""

    def __post_init__(self) -> None:
        require_positive(self, "eps")

    def __call__(self, z: Tensor) -> Tensor:
        """Of embeddings `[n, d]`, `[n]` in float32 or better; 0 for a single one. Raises `GenzooError` for others."""
        if z.ndim != 2:
            raise GenzooError(f"KoLeo takes embeddings [n, d], got {list(z.shape)}")
        with torch.autocast(z.device.type, enabled=False):
            z = directions(full(z))
            if len(z) < 2:
                return z.sum(1) * 0.0
            nearest = (z @ z.T).detach().fill_diagonal_(-torch.inf).argmax(1)
            squares = (z - z[nearest]).square().sum(1)
            return -(squares.clamp(min=self.eps**2).sqrt() + self.eps).log()


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft assignments `[m, k]` of scores `[m, k]`: rows sum to 1 exactly, columns to m / k nearly.

    Q = diag(u) exp(scores / epsilon) diag(v) by alternating normalisation (Cuturi 2013), in logarithms, so that no
    score is too large and no prototype too far away.
    """
    log_q = full(scores) / epsilon
    for _ in range(iterations):
        log_q = log_q.log_softmax(0)  # prototypes get equal shares
        log_q = log_q.log_softmax(1)  # and images whole ones
    return log_q.exp()


def prototype_scores(z: Tensor, prototypes: Tensor) -> Tensor:
    """Cosines `[b, k]` of embeddings `[b, d]` with prototypes `[k, d]`, in float32 or better, under autocast too.

    Prototypes may have any length: no step has to put them back on the sphere.
    """
    with torch.autocast(z.device.type, enabled=False):
        return cosines(full(z), full(prototypes).to(full(z)))


def _check_crops(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    if len(student) < 2 or not 1 <= len(teacher) <= len(student):
        raise GenzooError(
            f"swapped prediction needs 2 or more crops, some of which give targets, got {len(student)} crops "
            f"and {len(teacher)} targets"
        )
    shape = student[0].shape
    if len(shape) != 2 or any(scores.shape != shape for scores in student):
        raise GenzooError(
            f"all crops need scores of one shape [b, k], got {[list(s.shape) for s in student]}"
        )
    if any(t.ndim != 2 or t.shape[1] != shape[1] or len(t) < len(student[0]) for t in teacher):
        raise GenzooError(
            f"targets need scores [b or more, k] for crops {list(shape)}, got {[list(t.shape) for t in teacher]}"
        )
