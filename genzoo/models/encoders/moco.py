"""Momentum contrast: one view is told from the views of former images, which a slow copy of the network has seen.

    q = network(view a),  k = copy(view b)
    copy   <- m copy + (1 - m) network, before each pass            He et al. 2020 (MoCo), equation 2 and algorithm 1
    loss   InfoNCE of q: its own k against the queue                 equation 1
    queue  <- this batch's k, the oldest leave

Negatives are as many as the queue is long, whatever the batch; the copy is slow, so that they all mean nearly the same.
Copy and queue are buffers: an exact resume continues with them. A validation loss is worth comparing once the queue is
full, after size / batch steps: fewer negatives make a smaller loss.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec
from genzoo.core.trainable import Loss
from genzoo.data.augmentations import Augmentation, views
from genzoo.models.base import Encoder, EncoderConfig
from genzoo.models.encoders.embedding import check_discrete, collapse_figures, embedded, prepared
from genzoo.nn.backbones import Backbone, BackboneConfig, ProjectionConfig
from genzoo.nn.momentum_copy import MomentumCopy, Queue
from genzoo.objectives.contrastive import QueuedInfoNCE, QueueObjective, directions


@dataclass(frozen=True)
class MoCoConfig(EncoderConfig):
    """Two networks, how views differ, what queries minimise, and what is remembered."""

    backbone: BackboneConfig
    """Images to representations."""
    projection: ProjectionConfig
    """Representations to queries and keys."""
    augmentation: Augmentation
    """What an encoder learns to ignore."""
    objective: QueueObjective = field(default_factory=QueuedInfoNCE)
    """Of queries, their keys and stored keys."""
    queue: int = 4096
    """Stored keys."""
    momentum: float = 0.99
    """m; the copy follows within 1 / (1 - m) steps, which suits runs of thousands."""
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec: DataSpec) -> "MoCoEncoder":
        """Raises `GenzooError` where the network does not take the data, or a number is out of range."""
        check_discrete(spec)
        check_momentum(self.momentum)
        return MoCoEncoder(spec, self, self.backbone.build(spec.shape))


class MoCoEncoder(Encoder):
    """A backbone and a projection with their momentum copy and a queue of its keys."""

    watched = ("agreement", "dispersion")
    comparable_losses = False
    config: MoCoConfig

    def __init__(self, spec: DataSpec, config: MoCoConfig, backbone: Backbone) -> None:
        super().__init__()
        self.spec, self.config, self.backbone = spec, config, backbone
        self.width = backbone.width
        self.projection = config.projection.build(self.width)
        self.copy = MomentumCopy(self._network())
        self.queue = Queue(config.queue, config.projection.out)

    def _network(self) -> nn.Sequential:
        """What the copy is a copy of; a view of the two parts and not a third one."""
        return nn.Sequential(self.backbone, self.projection)

    def loss(self, batch: Batch, turn: str = "model", *, generator: torch.Generator | None = None) -> Loss:
        """The queries' objective `[b]`; parts are their cosine with their keys and the dispersion of both.

        In training mode the copy moves first, and the keys join the queue afterwards.
        """
        self.parameters_of(turn)
        x = prepared(batch.images, self.spec)
        first, second = views(self.config.augmentation, x, 2, generator)
        network = self._network()
        self.copy.update(network, self.config.momentum)
        query, key = network(first), self.copy(second)
        total = self.config.objective(query, key, self.queue.rows())
        self.queue.push(directions(key.float()))
        return Loss(total, collapse_figures(query, key))

    def embed(self, images: Tensor) -> Tensor:
        """Representations of the images as they are, float32 `[n, width]`."""
        return embedded(self, self.backbone, images)


def check_momentum(momentum: float) -> None:
    """Raises `GenzooError` unless 0 <= momentum <= 1."""
    if not 0 <= momentum <= 1:
        raise GenzooError(f"momentum must lie in 0 .. 1, got {momentum}")
