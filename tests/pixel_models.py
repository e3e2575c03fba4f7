"""Models that pass every check of the contract, small enough to be read at a glance."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError, NoLikelihood
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import Batch, DataSpec
from genzoo.core.trainable import Loss
from genzoo.models.base import GenerativeModel, ModelConfig
from genzoo.testing import yield_checks

GREY = DataSpec((1, 4, 4), levels=4)
CLASSES = DataSpec((1, 4, 4), levels=4, cond="class", cond_size=3)
VECTORS = DataSpec((1, 3, 4), levels=300, cond="vector", cond_size=2)
REAL = DataSpec((5,), levels=None)


@dataclass(frozen=True)
class PixelsConfig(ModelConfig):
    family: ClassVar[type]
    training: TrainConfig = field(default_factory=TrainConfig)

    def build(self, spec):
        return self.family(self, spec)


def validate(spec, images, cond, cond_optional=False):
    if tuple(images.shape[1:]) != spec.shape:
        raise GenzooError(f"images have shape {tuple(images.shape)}, expected [n, *{spec.shape}]")
    if spec.levels is not None and images.is_floating_point():
        raise GenzooError("images must be integers")
    if spec.levels is not None and int(images.max()) >= spec.levels:
        raise GenzooError(f"images must lie below {spec.levels}")
    validate_cond(spec, len(images), cond, cond_optional)


def validate_cond(spec, n, cond, optional):
    if cond is None:
        if spec.cond is not None and not optional:
            raise ValueError("cond is missing")
        return
    wanted = {None: None, "class": (n,), "vector": (n, spec.cond_size)}[spec.cond]
    if wanted is None or tuple(cond.shape) != wanted:
        raise ValueError(f"cond has shape {tuple(cond.shape)}, expected {wanted}")
    if spec.cond == "class" and not 0 <= int(cond.min()) <= int(cond.max()) < spec.cond_size:
        raise ValueError("class out of range")


class Pixels(GenerativeModel):
    """Independent categorical sub-pixels whose logits are linear in the condition: an exact likelihood."""

    def __init__(self, config, spec):
        super().__init__()
        self.spec, self.config = spec, config
        self.bias = nn.Parameter(torch.zeros(*spec.shape, spec.levels))
        self.weight = (
            nn.Parameter(torch.zeros(spec.cond_size, *spec.shape, spec.levels)) if spec.cond else None
        )

    @property
    def likelihood(self):
        return LikelihoodKind.EXACT

    def logits(self, cond, n):
        if self.weight is None:
            return self.bias.expand(n, *self.bias.shape)
        rows = F.one_hot(cond, self.spec.cond_size).float() if self.spec.cond == "class" else cond
        return self.bias + torch.einsum("nc,cijkl->nijkl", rows, self.weight)

    def log_prob(self, images, cond):
        logp = self.logits(cond, len(images)).log_softmax(-1)
        return logp.gather(-1, images.long()[..., None]).double().flatten(1).sum(1)

    def loss(self, batch, turn="model", *, generator=None):
        validate(self.spec, *batch)
        nats = self.log_prob(*batch)
        return Loss(-nats, {"nats": nats})

    @torch.no_grad()
    def sample(self, n, cond=None, *, generator=None):
        validate_cond(self.spec, n, cond, self.spec.cond == "class")
        if cond is None and self.spec.cond == "class":
            cond = torch.randint(self.spec.cond_size, (n,), generator=generator)
        p = self.logits(cond, n).softmax(-1)
        draws = torch.multinomial(p.flatten(0, -2), 1, generator=generator)
        return draws.reshape(n, *self.spec.shape).to(torch.uint8 if self.spec.levels <= 256 else torch.long)

    @torch.no_grad()
    def log_likelihood(self, images, cond=None, *, generator=None):
        validate(self.spec, images, cond, cond_optional=self.spec.cond == "class")
        return LogLikelihood(self.nats(images, cond), self.likelihood, self.spec)

    def nats(self, images, cond):
        if self.spec.cond != "class" or cond is not None:
            return self.log_prob(images, cond)
        each = [self.log_prob(images, torch.full((len(images),), c)) for c in range(self.spec.cond_size)]
        return torch.stack(each).logsumexp(0) - math.log(self.spec.cond_size)


class Gaussian(GenerativeModel):
    """Independent normal values: an exact likelihood of real-valued data."""

    def __init__(self, config, spec):
        super().__init__()
        self.spec, self.config = spec, config
        self.mean, self.log_std = nn.Parameter(torch.zeros(spec.shape)), nn.Parameter(torch.zeros(spec.shape))

    @property
    def likelihood(self):
        return LikelihoodKind.EXACT

    def loss(self, batch, turn="model", *, generator=None):
        validate(self.spec, *batch)
        normal = torch.distributions.Normal(self.mean, self.log_std.exp())
        return Loss(-normal.log_prob(batch.images).flatten(1).sum(1), {})

    @torch.no_grad()
    def sample(self, n, cond=None, *, generator=None):
        validate_cond(self.spec, n, cond, False)
        return self.mean + self.log_std.exp() * torch.randn(n, *self.spec.shape, generator=generator)

    @torch.no_grad()
    def log_likelihood(self, images, cond=None, *, generator=None):
        return LogLikelihood(-self.loss(Batch(images, cond)).total.double(), LikelihoodKind.EXACT, self.spec)


class Bound(Pixels):
    """A noisy lower bound: the exact likelihood less one nat, with noise of mean zero."""

    slack = 1.0
    kind = LikelihoodKind.LOWER_BOUND

    @property
    def likelihood(self):
        return self.kind

    @torch.no_grad()
    def log_likelihood(self, images, cond=None, *, generator=None):
        exact = super().log_likelihood(images, cond).nats
        noise = torch.randn(16, len(images), generator=generator).double()
        stderr = noise.std(0) / 4
        return LogLikelihood(exact - self.slack + noise.mean(0), self.kind, self.spec, stderr)


class Estimate(Bound):
    slack = 0.0
    kind = LikelihoodKind.ESTIMATE


class Duel(Pixels):
    """Two players and no likelihood: a generator that is scored by a critic."""

    turns = ("critic", "generator")

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.critic = nn.Linear(spec.dims, 1)

    @property
    def likelihood(self):
        return LikelihoodKind.NONE

    def parameters_of(self, turn):
        if turn not in self.turns:
            raise ValueError(f"unknown turn {turn!r}")
        critic = set(self.critic.parameters())
        return (p for p in self.parameters() if (p in critic) == (turn == "critic"))

    def score(self, images, frozen):
        weight, bias = self.critic.weight, self.critic.bias
        if frozen:
            weight, bias = weight.detach(), bias.detach()
        return F.linear(images.flatten(1), weight, bias)[:, 0]

    def loss(self, batch, turn="model", *, generator=None):
        validate(self.spec, *batch)
        n = len(batch.images)
        noise = torch.rand(n, *self.bias.shape, generator=generator)
        soft = (self.logits(batch.cond, n) + noise).softmax(-1)
        fake = (soft * torch.arange(self.spec.levels)).sum(-1)
        if turn == "generator":
            return Loss(-self.score(fake, frozen=True), {})
        real = self.score(batch.images.float(), frozen=False)
        return Loss(F.softplus(-real) + F.softplus(self.score(fake.detach(), frozen=False)), {"real": real})

    def log_likelihood(self, images, cond=None, *, generator=None):
        raise NoLikelihood("a duel defines no probability of an image")


def make(family, spec):
    """A model of `family` with a configuration class of its own, so that it can be rebuilt."""
    config = dataclasses.make_dataclass(
        f"{family.__name__}Config", [], bases=(PixelsConfig,), namespace={"family": family}, frozen=True
    )
    torch.manual_seed(0)
    return config().build(spec)


def failing(model):
    return {check.name for check in yield_checks(model) if not check.run().ok}
