"""The smallest models of the contract: independent categoricals per pixel, and a two-turn variant."""

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from genzoo.core.config import TrainConfig
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import Batch
from genzoo.core.trainable import Loss
from genzoo.models.base import GenerativeModel, ModelConfig


@dataclass(frozen=True)
class TinyConfig(ModelConfig):
    """`dropout` uses the global RNG, `noise` the generator; both default to none of it."""

    hidden: int = 0
    dropout: float = 0.0
    noise: float = 0.0
    training: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=16, precision="fp32"))

    def build(self, spec):
        return TinyModel(spec, self)


class TinyModel(GenerativeModel):
    """P(x) = prod_i softmax(logits_i)[x_i], where the logits are `weight @ ones + bias`."""

    def __init__(self, spec, config):
        super().__init__()
        self.spec, self.config = spec, config
        self.bias = nn.Parameter(torch.randn(spec.dims, spec.levels) * 0.1)
        self.gain = nn.Parameter(torch.ones(spec.dims))
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    @property
    def likelihood(self):
        return LikelihoodKind.EXACT

    def _log_prob(self, images, bias):
        logits = F.log_softmax((bias * self.gain[:, None]).float(), -1)
        chosen = logits.expand(len(images), -1, -1).gather(2, images.flatten(1).long()[..., None])
        return chosen.squeeze(2).sum(1)

    def loss(self, batch, turn="model", *, generator=None):
        bias = self.dropout(self.bias)
        if self.config.noise:
            bias = bias + self.config.noise * torch.randn(bias.shape, generator=generator)
        if self.training:
            self.seen += 1
        nll = -self._log_prob(batch.images, bias)
        return Loss(nll, {"nll": nll})

    def sample(self, n, cond=None, *, generator=None):
        p = (self.bias * self.gain[:, None]).softmax(-1)
        draws = torch.multinomial(p, n, replacement=True, generator=generator)
        return draws.T.reshape(n, *self.spec.shape).to(torch.uint8)

    def log_likelihood(self, images, cond=None, *, generator=None):
        return LogLikelihood(self._log_prob(images, self.bias).double(), self.likelihood, self.spec)


@dataclass(frozen=True)
class DuelConfig(ModelConfig):
    training: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=16, precision="fp32"))

    def build(self, spec):
        return Duel(spec, self)


class Duel(GenerativeModel):
    """Two players whose losses both contain both players' parameters, with gradients known by hand.

    With m the mean of an image: critic loss = c (a - m), actor loss = c a m + a^2.
    """

    turns = ("critic", "actor")

    def __init__(self, spec, config):
        super().__init__()
        self.spec, self.config = spec, config
        self.critic = nn.Parameter(torch.tensor([1.0]))
        self.actor = nn.Parameter(torch.tensor([2.0]))

    @property
    def likelihood(self):
        return LikelihoodKind.NONE

    def parameters_of(self, turn):
        return iter([{"critic": self.critic, "actor": self.actor}[turn]])

    def loss(self, batch, turn="model", *, generator=None):
        mean = batch.images.float().flatten(1).mean(1)
        if turn == "critic":
            total = self.critic * (self.actor - mean)
        else:
            total = self.critic * self.actor * mean + self.actor**2
        return Loss(total, {"value": total})

    def sample(self, n, cond=None, *, generator=None):
        return torch.zeros(n, *self.spec.shape, dtype=torch.uint8)

    def log_likelihood(self, images, cond=None, *, generator=None):
        raise AssertionError("not asked for here")


def tiny_images(n, spec, seed=0):
    """Images whose pixels have different frequencies."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(spec.dims, spec.levels, generator=generator) ** 3 + 0.01
    draws = torch.multinomial(p, n, replacement=True, generator=generator)
    return draws.T.reshape(n, *spec.shape).to(torch.uint8)


__all__ = ["Batch", "Duel", "DuelConfig", "TinyConfig", "TinyModel", "tiny_images"]
