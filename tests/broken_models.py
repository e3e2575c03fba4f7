"""Models that each fail one check of the contract, and are otherwise as those of `pixel_models`."""

import dataclasses
import math
import random

import numpy as np
import torch
import torch.nn.functional as F
from pixel_models import Bound, Duel, Estimate, Pixels, validate, validate_cond

from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import Batch, DataSpec
from genzoo.core.trainable import Loss
from genzoo.models.doors import DOORS


class WrongKind(Pixels):
    @torch.no_grad()
    def log_likelihood(self, images, cond=None, *, generator=None):
        ll = super().log_likelihood(images, cond)
        return dataclasses.replace(ll, kind=LikelihoodKind.LOWER_BOUND)


class Unnormalised(Pixels):
    def nats(self, images, cond):
        return super().nats(images, cond) + 1e-4


class PaddedBits(Pixels):
    @torch.no_grad()
    def log_likelihood(self, images, cond=None, *, generator=None):
        padded = DataSpec((1, 8, 8), levels=self.spec.levels)
        return dataclasses.replace(super().log_likelihood(images, cond), spec=padded)


class TooHighBound(Bound):
    slack = -0.3


class TooHighEstimate(Estimate):
    slack = -0.2


class TooLowEstimate(Estimate):
    slack = 0.3


class HiddenNoise(Bound):
    @torch.no_grad()
    def log_likelihood(self, images, cond=None, *, generator=None):
        return dataclasses.replace(super().log_likelihood(images, cond, generator=generator), stderr=None)


class GlobalTorch(Pixels):
    def sample(self, n, cond=None, *, generator=None):
        return super().sample(n, cond)


class GlobalNumpy(Pixels):
    def loss(self, batch, turn="model", *, generator=None):
        np.random.rand()
        return super().loss(batch, turn)


class GlobalPython(Pixels):
    def log_likelihood(self, images, cond=None, *, generator=None):
        random.random()
        return super().log_likelihood(images, cond)


class Counter(Pixels):
    """Draws from a stream of its own that goes on from call to call."""

    def sample(self, n, cond=None, *, generator=None):
        self.calls = getattr(self, "calls", 0) + 1
        seed = generator.initial_seed() + self.calls if generator else 0
        return super().sample(n, cond, generator=torch.Generator().manual_seed(seed))


class NotThatSure(Pixels):
    """Calls itself deterministic."""

    deterministic = True


class SameSeed(Pixels):
    def sample(self, n, cond=None, *, generator=None):
        return super().sample(n, cond, generator=torch.Generator().manual_seed(0))


class FloatSamples(Pixels):
    def sample(self, n, cond=None, *, generator=None):
        return super().sample(n, cond, generator=generator).float()


class OutOfRange(Pixels):
    def sample(self, n, cond=None, *, generator=None):
        return super().sample(n, cond, generator=generator) + (self.spec.dims == 16)


class BatchCoupled(Pixels):
    """Logits move with the mean image of the batch, which vanishes for all images of a small space."""

    @torch.no_grad()
    def nats(self, images, cond):
        shift = (images.float().mean() - (self.spec.levels - 1) / 2) * torch.arange(self.spec.levels)
        logp = (self.bias + shift).log_softmax(-1).expand(len(images), *self.bias.shape)
        return logp.gather(-1, images.long()[..., None]).double().flatten(1).sum(1)


class ModeDependent(Pixels):
    def nats(self, images, cond):
        return super().nats(images, cond) - float(self.training)


class Wraps(Pixels):
    """Arithmetic in uint8: 3 + 253 is 0."""

    def log_prob(self, images, cond):
        weights = ((images + 253).double() - 253).clamp_min(0) if self.spec.dims == 16 else images.double()
        return super().log_prob(images, cond) - 0.01 * (weights - images).abs().flatten(1).sum(1)


class TurnMisses(Pixels):
    def parameters_of(self, turn):
        return iter(list(super().parameters_of(turn))[:1])


class TurnsShare(Duel):
    """Both turns train the critic's bias, and the losses of both reach it."""

    def parameters_of(self, turn):
        own = list(super().parameters_of(turn))
        return iter(own + [self.critic.bias] * (turn == "generator"))

    def score(self, images, frozen):
        weight = self.critic.weight.detach() if frozen else self.critic.weight
        return F.linear(images.flatten(1), weight, self.critic.bias)[:, 0]


class AnyTurn(Pixels):
    def parameters_of(self, turn):
        return self.parameters()


class Leak(Duel):
    def score(self, images, frozen):
        return super().score(images, False)


class Detached(Duel):
    def score(self, images, frozen):
        return super().score(images.detach() if frozen else images, False) + (
            0 * self.bias.sum() if frozen else 0
        )


class Explodes(Duel):
    def loss(self, batch, turn="model", *, generator=None):
        loss = super().loss(batch, turn, generator=generator)
        return Loss(loss.total + (math.inf if self.bias.abs().max() > 5e-3 else 0), {})


class MeanLoss(Pixels):
    def loss(self, batch, turn="model", *, generator=None):
        loss = super().loss(batch, turn)
        return Loss(loss.total, {"nats": loss.parts["nats"].mean()})


class PlainAttribute(Pixels):
    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.scale = torch.rand(()).item() + 0.5

    def logits(self, cond, n):
        return super().logits(cond, n) * self.scale


class Lazy(Pixels):
    """Its loss is all but constant."""

    def loss(self, batch, turn="model", *, generator=None):
        loss = super().loss(batch, turn)
        return Loss(loss.total.detach() * 0 + 1 + 1e-6 * loss.total, {})


class IgnoresCond(Pixels):
    def logits(self, cond, n):
        return super().logits(torch.zeros_like(cond), n) + 0 * self.weight.sum()


class IgnoresCondInSampling(Pixels):
    def sample(self, n, cond=None, *, generator=None):
        validate_cond(self.spec, n, cond, True)
        return super().sample(n, torch.zeros(n, dtype=torch.long), generator=generator)


class SumsClasses(Pixels):
    def nats(self, images, cond):
        return super().nats(images, cond) + (math.log(3) if cond is None else 0)


def without_doors(family):
    """A family whose methods are its own, unchecked: what the checks of `genzoo.models.doors` would catch gets in."""
    for name in DOORS.keys() & vars(family).keys():
        setattr(family, name, vars(family)[name].__wrapped__)
    return family


@without_doors
class TakesAnyClass(Pixels):
    def logits(self, cond, n):
        return super().logits(cond % self.spec.cond_size, n)

    def sample(self, n, cond=None, *, generator=None):
        cond = cond if cond is None else cond[:1].expand(n) % self.spec.cond_size
        return super().sample(n, cond, generator=generator)

    @torch.no_grad()
    def log_likelihood(self, images, cond=None, *, generator=None):
        cond = cond if cond is None else cond % self.spec.cond_size
        return super().log_likelihood(images, cond)


@without_doors
class TakesAnyCond(Pixels):
    def sample(self, n, cond=None, *, generator=None):
        return super().sample(n, generator=generator)


class TakesFloats(Pixels):
    def loss(self, batch, turn="model", *, generator=None):
        return super().loss(Batch(batch.images.long(), batch.cond), turn)


@without_doors
class TakesAnyValue(Pixels):
    def log_likelihood(self, images, cond=None, *, generator=None):
        clamped = images if images.is_floating_point() else images.clamp_max(self.spec.levels - 1)
        return super().log_likelihood(clamped, cond)


class NumbersFromNone(Pixels):
    @property
    def likelihood(self):
        return LikelihoodKind.NONE

    @torch.no_grad()
    def log_likelihood(self, images, cond=None, *, generator=None):
        return LogLikelihood(self.log_prob(images, cond), LikelihoodKind.ESTIMATE, self.spec)


class Graph(Pixels):
    def log_likelihood(self, images, cond=None, *, generator=None):
        validate(self.spec, images, cond, cond_optional=True)
        return LogLikelihood(self.nats(images, cond), self.likelihood, self.spec)


class Drifts(Pixels):
    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.register_buffer("count", torch.zeros(()))

    def sample(self, n, cond=None, *, generator=None):
        self.count += 1
        return super().sample(n, cond, generator=generator)


class BadSampler(Pixels):
    @torch.no_grad()
    def sample(self, n, cond=None, *, generator=None):
        return super().sample(n, cond, generator=generator).flip(-1)
