"""Multi-crop encoders: small crops of an image predict which prototypes its large crops belong to.

Two large views and some small ones, which cost little; scores are cosines of projections with learned prototypes:

    SwAV   targets: Sinkhorn on the network's own scores of the large views        Caron et al. 2020, section 3
    DINO   targets: a momentum copy's scores of them, centred and sharpened        Caron et al. 2021, algorithm 1
           + weight * KoLeo of the large views' representations                    Oquab et al. 2023 (DINOv2), section 4

The momentum copy, the centre and the queue of former embeddings are buffers: an exact resume continues with them.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from genzoo.core.bounds import Many
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec
from genzoo.core.trainable import Loss
from genzoo.data.augmentations import Augmentation, MultiCrop, views
from genzoo.models.base import Encoder, EncoderConfig
from genzoo.models.encoders.embedding import check_discrete, collapse_figures, embedded, prepared
from genzoo.models.encoders.moco import check_momentum
from genzoo.nn.backbones import Backbone, BackboneConfig, ProjectionConfig
from genzoo.nn.momentum_copy import Centre, MomentumCopy, Queue, momentum_at
from genzoo.objectives.clustering import Centering, CrossViewLoss, KoLeo, prototype_scores
from genzoo.objectives.contrastive import directions


class Prototypes(nn.Module):
    """Scores: the cosines of embeddings with `count` learned directions."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(directions(torch.randn(count, width)))

    def forward(self, z: Tensor) -> Tensor:
        """`[..., width]` to `[..., count]`, in float32 or better."""
        return prototype_scores(z, self.weight)


# --- SwAV ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SwAVConfig(EncoderConfig):
    """Two networks and prototypes, how views differ, and what they minimise."""

    backbone: BackboneConfig
    """Images (and small crops) to representations."""
    projection: ProjectionConfig
    """Representations to embeddings."""
    augmentation: MultiCrop | Augmentation
    """Large views, which give targets, and small ones; an `Augmentation` gives two large views and no small ones."""
    objective: CrossViewLoss = field(default_factory=CrossViewLoss)
    """How crops predict each other's assignment."""
    prototypes: Many = 128
    """At most about the batch (and the queue): each shall get an equal share of it."""
    queue: int = 0
    """Former embeddings that take part in the assignment; for batches smaller than the number of prototypes."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "SwAVEncoder":
        """Raises `GenzooError` where the network does not take the data, or a number is out of range."""
        check_discrete(spec)
        check_crops(self.prototypes, self.augmentation)
        if self.queue < 0:
            raise GenzooError(f"the queue must hold 0 or more embeddings, got {self.queue}")
        return SwAVEncoder(spec, self, self.backbone.build(spec.shape))


class SwAVEncoder(Encoder):
    """A backbone, a projection and prototypes, the last two thrown away after training."""

    watched = ("agreement", "dispersion", "clusters")
    comparable_losses = False
    config: SwAVConfig

    def __init__(self, spec: DataSpec, config: SwAVConfig, backbone: Backbone) -> None:
        super().__init__()
        self.spec, self.config, self.backbone = spec, config, backbone
        self.width = backbone.width
        self.projection = standardised(config.projection, self.width)
        self.prototypes = Prototypes(config.prototypes, config.projection.out)
        self.queue = Queue(config.queue, config.projection.out) if config.queue else None

    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """The mean `[b]` over pairs of crops of one image.

        Parts are the large views' cosine, the dispersion of their embeddings, and the number of prototypes in use: the
        exponential of the entropy of their mean prediction.
        """
        self.parameters_of(turn)
        x, config = prepared(batch.images, self.spec), self.config
        large, small = crops_of(config.augmentation, x, generator)
        z = self.projection(self.backbone(large.flatten(0, 1))).unflatten(0, large.shape[:2])
        scores = list(self.prototypes(z))
        if small is not None:
            hidden = self.projection(self.backbone(small.flatten(0, 1)))
            scores += self.prototypes(hidden).chunk(len(small))
        total = config.objective(scores, self._teacher(z.detach()))
        used = clusters_in_use(scores[: len(large)], config.objective.temperature)
        return Loss(total, {**collapse_figures(z[0], z[1]), "clusters": used})

    @torch.no_grad()
    def _teacher(self, z: Tensor) -> list[Tensor]:
        """Scores of each large view `[views, b, d]`, followed by those of the stored embeddings."""
        if self.queue is None:
            return list(self.prototypes(z))
        stored = self.queue.rows().to(z)
        self.queue.push(directions(z.flatten(0, 1)))
        return [self.prototypes(torch.cat([view, stored])) for view in z]

    def embed(self, images: Tensor) -> Tensor:
        """Representations of the images as they are, float32 `[n, width]`."""
        return embedded(self, self.backbone, images)


# --- DINO ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DINOConfig(EncoderConfig):
    """Two networks and prototypes, how views differ, what they minimise, and how the teacher follows."""

    backbone: BackboneConfig
    """Images (and small crops) to representations."""
    projection: ProjectionConfig
    """Representations to embeddings."""
    augmentation: MultiCrop | Augmentation
    """Large views, which the teacher sees, and small ones; an `Augmentation` gives two large views and no small."""
    objective: CrossViewLoss = field(default_factory=lambda: CrossViewLoss(Centering()))
    """How crops predict the teacher's scores."""
    prototypes: Many = 256
    """Numbers of a score."""
    momentum: float = 0.99
    """The teacher's at the start of a run; it rises to 1."""
    centre_momentum: float = 0.9
    """That of the mean score."""
    koleo: float = 0.0
    """Weight of the term that spreads representations; DINOv2 has 0.1."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "DINOEncoder":
        """Raises `GenzooError` where the network does not take the data, or a number is out of range."""
        check_discrete(spec)
        check_crops(self.prototypes, self.augmentation)
        check_momentum(self.momentum)
        if not self.koleo >= 0:
            raise GenzooError(f"koleo must be at least 0, got {self.koleo}")
        return DINOEncoder(spec, self, self.backbone.build(spec.shape))


class DINOEncoder(Encoder):
    """A student of its own momentum copy."""

    watched = ("agreement", "dispersion", "clusters")
    comparable_losses = False
    config: DINOConfig

    def __init__(self, spec: DataSpec, config: DINOConfig, backbone: Backbone) -> None:
        super().__init__()
        self.spec, self.config, self.backbone = spec, config, backbone
        self.width = backbone.width
        self.projection = standardised(config.projection, self.width)
        self.prototypes = Prototypes(config.prototypes, config.projection.out)
        self.teacher = MomentumCopy(self._student())
        self.centre = Centre(config.prototypes, config.centre_momentum)
        self.koleo = KoLeo()

    def _student(self) -> nn.Sequential:
        """What the teacher is a copy of; a view of the three parts and not a fourth one."""
        return nn.Sequential(self.backbone, self.projection, self.prototypes)

    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """The mean `[b]` over pairs of crops of one image, plus KoLeo.

        In training mode the teacher moves first, and the centre afterwards. Parts are those of SwAV.
        """
        self.parameters_of(turn)
        x, config, student = prepared(batch.images, self.spec), self.config, self._student()
        self.teacher.update(student, momentum_at(self.progress, config.momentum))
        large, small = crops_of(config.augmentation, x, generator)
        h = self.backbone(large.flatten(0, 1))
        z = self.projection(h)
        scores = list(self.prototypes(z).chunk(len(large)))
        if small is not None:
            scores += student(small.flatten(0, 1)).chunk(len(small))
        teacher = self.teacher(large.flatten(0, 1))
        total = config.objective(scores, teacher.chunk(len(large)), self.centre.value)
        self.centre.update(teacher)
        if config.koleo:
            total = total + config.koleo * sum(self.koleo(view) for view in h.chunk(len(large)))
        used = clusters_in_use(scores[: len(large)], config.objective.temperature)
        first, second, *_ = z.chunk(len(large))
        return Loss(total, {**collapse_figures(first, second), "clusters": used})

    def embed(self, images: Tensor) -> Tensor:
        """Representations of the images as they are, float32 `[n, width]`, by the student."""
        return embedded(self, self.backbone, images)


# --- both ------------------------------------------------------------------------------------------------------


def standardised(projection: ProjectionConfig, width: int) -> nn.Sequential:
    """The projection, then batch normalisation without weights.

    It keeps images apart: without it networks start, and stay, near one place for all of them, where no prototype is
    better than another (measured on digits after a hundred steps: cosines of 0.98 to 1).
    """
    return nn.Sequential(projection.build(width), nn.BatchNorm1d(projection.out, affine=False))


def crops_of(
    augmentation: MultiCrop | Augmentation, x: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """Large views `[views, b, c, h, w]`, and small ones or None."""
    if isinstance(augmentation, MultiCrop):
        return augmentation(x, generator)
    return views(augmentation, x, 2, generator), None


@torch.no_grad()
def clusters_in_use(scores: list[Tensor], temperature: float) -> Tensor:
    """exp H(mean prediction) `[b]`, the same for all images: 1 where one prototype takes all, k where none stands out.

    >>> clusters_in_use([torch.eye(4), torch.eye(4)], 0.01).round().tolist()
    [4.0, 4.0, 4.0, 4.0]
    """
    mean = torch.cat([(view / temperature).softmax(1) for view in scores]).mean(0)
    return torch.special.entr(mean).sum().exp().expand(len(scores[0]))


def check_crops(prototypes: int, augmentation: MultiCrop | Augmentation) -> None:
    """Raises `GenzooError` for less than two prototypes, two large views or one small view."""
    if prototypes < 2:
        raise GenzooError(f"at least 2 prototypes are needed, got {prototypes}")
    if isinstance(augmentation, MultiCrop) and (augmentation.large_count < 2 or augmentation.small_count < 1):
        raise GenzooError(
            "a MultiCrop needs 2 or more large and 1 or more small views; give its large augmentation alone for none"
        )
