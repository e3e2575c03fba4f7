"""The conformance suite passes honest models, and each way of cheating is caught by the check made for it."""

import copy
import dataclasses
import math
import random
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genzoo.config import ModelConfig, TrainConfig
from genzoo.contract import (
    Batch,
    DataSpec,
    GenerativeModel,
    GenzooError,
    Likelihood,
    LogLikelihood,
    Loss,
    NoLikelihood,
)
from genzoo.testing import ConformanceError, Status, check_model, yield_checks

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
        return Likelihood.EXACT

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
        return Likelihood.EXACT

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
        return LogLikelihood(-self.loss(Batch(images, cond)).total.double(), Likelihood.EXACT, self.spec)


class Bound(Pixels):
    """A noisy lower bound: the exact likelihood less one nat, with noise of mean zero."""

    slack = 1.0
    kind = Likelihood.LOWER_BOUND

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
    kind = Likelihood.ESTIMATE


class Duel(Pixels):
    """Two players and no likelihood: a generator that is scored by a critic."""

    turns = ("critic", "generator")

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.critic = nn.Linear(spec.dims, 1)

    @property
    def likelihood(self):
        return Likelihood.NONE

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


# --- honest models ---------------------------------------------------------------------------------------

HONEST = [
    (Pixels, GREY),
    (Pixels, CLASSES),
    (Pixels, VECTORS),
    (Gaussian, REAL),
    (Bound, GREY),
    (Estimate, GREY),
]
HONEST += [(Duel, GREY), (Duel, CLASSES)]
MODELS = [make(*pair) for pair in HONEST]


@pytest.mark.parametrize("model", MODELS, ids=[f"{f.__name__}-{s.cond}" for f, s in HONEST])
def test_honest_models_pass(model):
    results = check_model(model)
    assert all(result.ok for result in results)
    assert {r.name for r in results if r.status is Status.SKIPPED} == set()
    assert len({r.name for r in results}) == len(results) >= 13


@pytest.mark.parametrize("check", list(yield_checks(MODELS[1])))
def test_checks_parametrise_pytest(check, request):
    assert f"[{check.name}]" in request.node.name
    assert check.description.endswith(".")
    check()


# --- broken models: exactly the named check catches each -------------------------------------------------


class WrongKind(Pixels):
    @torch.no_grad()
    def log_likelihood(self, images, cond=None, *, generator=None):
        ll = super().log_likelihood(images, cond)
        return dataclasses.replace(ll, kind=Likelihood.LOWER_BOUND)


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


class TakesAnyClass(Pixels):
    def logits(self, cond, n):
        return super().logits(cond % self.spec.cond_size, n)

    @torch.no_grad()
    def log_likelihood(self, images, cond=None, *, generator=None):
        cond = cond if cond is None else cond % self.spec.cond_size
        return super().log_likelihood(images, cond)


class TakesAnyCond(Pixels):
    def sample(self, n, cond=None, *, generator=None):
        return super().sample(n, generator=generator)


class TakesFloats(Pixels):
    def loss(self, batch, turn="model", *, generator=None):
        return super().loss(Batch(batch.images.long(), batch.cond), turn)


class TakesAnyValue(Pixels):
    def log_likelihood(self, images, cond=None, *, generator=None):
        clamped = images if images.is_floating_point() else images.clamp_max(self.spec.levels - 1)
        return super().log_likelihood(clamped, cond)


class NumbersFromNone(Pixels):
    @property
    def likelihood(self):
        return Likelihood.NONE

    @torch.no_grad()
    def log_likelihood(self, images, cond=None, *, generator=None):
        return LogLikelihood(self.log_prob(images, cond), Likelihood.ESTIMATE, self.spec)


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


ENUMERATION = {"enumeration_binary", "enumeration_levels", "enumeration_rgb"}
BROKEN = [
    (WrongKind, GREY, {"likelihood_is_as_declared"}),
    (PaddedBits, GREY, {"likelihood_is_as_declared"}),
    (HiddenNoise, GREY, {"likelihood_is_as_declared", "likelihood_ignores_neighbours"}),
    (Unnormalised, GREY, ENUMERATION),
    (TooHighBound, GREY, ENUMERATION),
    (TooHighEstimate, GREY, ENUMERATION | {"estimate_sums_to_one"}),
    (TooLowEstimate, GREY, {"estimate_sums_to_one"}),
    (BadSampler, GREY, {"samples_follow_likelihood"}),
    (GlobalTorch, GREY, {"global_rng_untouched"}),
    (GlobalNumpy, GREY, {"global_rng_untouched"}),
    (GlobalPython, GREY, {"global_rng_untouched"}),
    (Counter, GREY, {"same_generator_same_results"}),
    (SameSeed, GREY, {"different_seeds_different_samples"}),
    (NotThatSure, GREY, {"samples_ignore_chance"}),
    (FloatSamples, GREY, {"samples_fit_the_spec"}),
    (OutOfRange, GREY, {"samples_fit_the_spec"}),
    (BatchCoupled, GREY, {"likelihood_ignores_neighbours"}),
    (ModeDependent, GREY, {"likelihood_ignores_mode"}),
    (Wraps, GREY, {"integer_types_agree"}),
    (TurnMisses, CLASSES, {"turns_partition_parameters"}),
    (TurnsShare, GREY, {"turns_partition_parameters"}),
    (AnyTurn, GREY, {"turns_partition_parameters"}),
    (Leak, GREY, {"gradients_stay_in_their_turn"}),
    (Detached, GREY, {"gradients_stay_in_their_turn"}),
    (Explodes, GREY, {"alternating_losses_stay_finite"}),
    (MeanLoss, GREY, {"loss_is_finite_per_image"}),
    (PlainAttribute, GREY, {"save_and_load"}),
    (Lazy, GREY, {"overfits_eight"}),
    (IgnoresCond, CLASSES, {"cond_matters"}),
    (IgnoresCondInSampling, CLASSES, {"cond_matters"}),
    (SumsClasses, CLASSES, {"class_likelihoods_average"}),
    (TakesAnyClass, CLASSES, {"wrong_cond_raises"}),
    (TakesAnyCond, GREY, {"cond_is_refused"}),
    (TakesFloats, GREY, {"wrong_images_raise"}),
    (TakesAnyValue, GREY, {"values_out_of_range_raise"}),
    (NumbersFromNone, GREY, {"no_likelihood_raises"}),
    (Graph, GREY, {"evaluation_leaves_no_trace"}),
    (Drifts, GREY, {"evaluation_leaves_no_trace"}),
]


@pytest.mark.parametrize(("family", "spec", "names"), BROKEN, ids=[row[0].__name__ for row in BROKEN])
def test_broken_models_are_caught_by_exactly_their_check(family, spec, names):
    assert failing(make(family, spec)) == names


def test_every_check_is_seen_to_fail():
    models = [*MODELS, make(NotThatSure, GREY)]
    known = {check.name for model in models for check in yield_checks(model)}
    assert known == set().union(*(names for _, _, names in BROKEN))


# --- the report ------------------------------------------------------------------------------------------


def test_the_error_names_every_failing_check_on_a_line_of_its_own():
    with pytest.raises(ConformanceError, match="Unnormalised fails 3 of ") as caught:
        check_model(make(Unnormalised, GREY))
    lines = str(caught.value).splitlines()
    assert {line.split(":")[0].strip() for line in lines[1:]} == ENUMERATION
    assert "P sums to 1.0001" in lines[1]
    assert sum(not result.ok for result in caught.value.results) == 3


def test_expected_failures_are_strict():
    reasons = dict.fromkeys(ENUMERATION, "known to be off by a constant")
    results = check_model(make(Unnormalised, GREY), expected_failures=reasons)
    assert {r.name for r in results if r.status is Status.EXPECTED_FAILURE} == ENUMERATION
    with pytest.raises(ConformanceError, match="save_and_load: passes, but was expected to fail: why not"):
        check_model(make(Pixels, GREY), expected_failures={"save_and_load": "why not"})
    with pytest.raises(GenzooError, match="'sav_and_load', which is no check of this model"):
        check_model(make(Pixels, GREY), expected_failures={"sav_and_load": "a slip"})


class Picky(Pixels):
    def __init__(self, config, spec):
        if spec.shape != (1, 4, 4):
            raise GenzooError("this network takes 4x4 images only")
        super().__init__(config, spec)


def test_a_model_without_small_siblings_skips_the_enumeration_and_says_why():
    skipped = {r.name: r.message for r in check_model(make(Picky, GREY)) if r.status is Status.SKIPPED}
    assert skipped.keys() == ENUMERATION | {"samples_follow_likelihood"}
    assert all("this network takes 4x4 images only" in message for message in skipped.values())


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_global_random_state_stay_as_they_were(training):
    model = make(Duel, CLASSES).train(training)
    model.bias.grad = torch.ones_like(model.bias)
    before, gradient = copy.deepcopy(model.state_dict()), model.bias.grad.clone()
    torch.manual_seed(5)
    np.random.seed(6)
    random.seed(7)
    expected = [torch.rand(()).item(), np.random.rand(), random.random()]
    torch.manual_seed(5)
    np.random.seed(6)
    random.seed(7)
    check_model(model)
    assert [torch.rand(()).item(), np.random.rand(), random.random()] == expected
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.bias.grad, gradient)
    assert model.training is training
