"""Models that draw what they hold, so that the quality of their samples is known."""

from dataclasses import dataclass, field

import torch

from genzoo.core.config import TrainConfig
from genzoo.core.errors import NoLikelihood
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.models.base import GenerativeModel, ModelConfig


@dataclass(frozen=True)
class BankConfig(ModelConfig):
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec):
        return Bank(spec, self)


class Bank(GenerativeModel):
    """Draws images that it was given; what it was asked for stays in `asked`."""

    def __init__(self, spec, config=None):
        super().__init__()
        self.spec, self.config = spec, config or BankConfig()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.images, self.asked = torch.zeros(0, *spec.shape), []

    def holding(self, images):
        self.images = images
        return self

    @property
    def likelihood(self):
        return LikelihoodKind.NONE

    def loss(self, batch, turn="model", *, generator=None):
        raise AssertionError("not asked for here")

    def sample(self, n, cond=None, *, generator=None):
        self.asked.append((n, cond))
        chosen = torch.randint(len(self.images), (n,), generator=generator)
        return self.images[chosen]

    def log_likelihood(self, images, cond=None, *, generator=None):
        raise NoLikelihood("a bank has none")


class OfClasses(Bank):
    """Draws training images of the class asked for, or of `other` classes than that."""

    def drawing(self, split, shift=0):
        self.images, self.labels, self.shift = split.images, split.labels, shift
        return self

    def sample(self, n, cond=None, *, generator=None):
        wanted = (cond + self.shift) % self.spec.cond_size
        rows = [(self.labels == label).nonzero().flatten()[i % 50] for i, label in enumerate(wanted)]
        return self.images[torch.stack(rows)]
