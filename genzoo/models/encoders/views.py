"""Encoders from two views of each image: SimCLR, Barlow Twins, VICReg, SupCon, triplets, tuplets, pairs.

    h = backbone(view)        the representation, what `embed` gives of the image itself
    z = projection(h)         where the objective is; thrown away afterwards    (Chen et al. 2020, section 4.2)

    loss   objective(z_a, z_b)                       two views per image, drawn anew each time
    or     objective([z_a; z_b], [labels; labels])   with classes                (Khosla et al. 2020, section 3.1)

Which recipe it is depends on the objective alone (`genzoo.objectives.contrastive`, `.redundancy`, `.labelled`).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from genzoo.core.config import TrainConfig
from genzoo.core.spec import Batch, DataSpec
from genzoo.core.trainable import Loss
from genzoo.data.augmentations import Augmentation, views
from genzoo.models.base import Encoder, EncoderConfig
from genzoo.models.encoders.embedding import check_discrete, classes_of, collapse_figures, embedded, prepared
from genzoo.nn.backbones import Backbone, BackboneConfig, ProjectionConfig
from genzoo.objectives.contrastive import PairObjective
from genzoo.objectives.supervised import LabelledObjective


@dataclass(frozen=True)
class ViewsConfig(EncoderConfig):
    """Two networks, how views differ, and what they minimise."""

    backbone: BackboneConfig
    """Images to representations."""
    projection: ProjectionConfig
    """Representations to what the objective sees."""
    augmentation: Augmentation
    """What an encoder learns to ignore."""
    objective: PairObjective | LabelledObjective
    """Of pairs of views; or of classes, which the data must have then."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "ViewsEncoder":
        """Raises `GenzooError` where the network does not take the data."""
        check_discrete(spec)
        return ViewsEncoder(spec, self, self.backbone.build(spec.shape))


class ViewsEncoder(Encoder):
    """A backbone that is trained through a projection on two views of each image."""

    watched = ("agreement", "dispersion")
    config: ViewsConfig

    def __init__(self, spec: DataSpec, config: ViewsConfig, backbone: Backbone) -> None:
        super().__init__()
        self.spec, self.config, self.backbone = spec, config, backbone
        self.width = backbone.width
        self.projection = config.projection.build(self.width)

    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """The objective `[b]`; parts are the cosine of the views and the dispersion of all embeddings.

        Raises `GenzooError` where the objective needs classes and the batch has none.
        """
        self.parameters_of(turn)
        x = prepared(batch.images, self.spec)
        both = views(self.config.augmentation, x, 2, generator).flatten(0, 1)
        a, b = self.projection(self.backbone(both)).chunk(2)
        return Loss(self._objective(a, b, batch), collapse_figures(a, b))

    def _objective(self, a: Tensor, b: Tensor, batch: Batch) -> Tensor:
        objective = self.config.objective
        if isinstance(objective, PairObjective):
            return objective(a, b)
        labels = classes_of(batch, type(objective).__name__)
        return objective(torch.cat([a, b]), labels.repeat(2)).view(2, -1).mean(0)

    def embed(self, images: Tensor) -> Tensor:
        """Representations of the images as they are, float32 `[n, width]`."""
        return embedded(self, self.backbone, images)
