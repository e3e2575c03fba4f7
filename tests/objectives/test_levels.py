"""The denoiser of levels against Bayes' rule in loops, and the bound it gives against the probability it means."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from genzoo import create
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import Batch, DataSpec
from genzoo.data import TensorSplit
from genzoo.evaluation.likelihood import evaluate_likelihood
from genzoo.models.diffusion.denoising_model import DiffusionConfig
from genzoo.nn.mlp import MLPConfig
from genzoo.objectives.denoising.levels import expected_levels
from genzoo.objectives.denoising.paths import (
    VE,
    Coefficients,
    DataTarget,
    Linear,
    VPCosine,
    append_dims,
    to_prediction,
)
from genzoo.objectives.dequantisation import UniformDequantisation, bin_centres
from genzoo.objectives.elbo import normal_noise
from genzoo.objectives.likelihood.diffusion_bound import BoundProtocol, diffusion_bound
from genzoo.objectives.likelihood.ode import OdeProtocol
from genzoo.objectives.likelihood.protocol import summed_over_classes

LEVELS = [2, 17, 256]
F64 = torch.float64
GREY = DataSpec((1, 2, 2), levels=17)
VECTORS = DataSpec((2,), levels=None)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=rng(seed), dtype=dtype)


def times(*values):
    return torch.tensor(values, dtype=F64)


def naive(logits, x_t, at, levels):
    """sum_k c_k P(k) N(x_t; alpha c_k, sigma^2) / sum_k P(k) N(...), one number after the other."""
    b, c, *rest = x_t.shape
    flat, seen = logits.reshape(b, c, levels, -1).tolist(), x_t.reshape(b, c, -1).tolist()
    alpha, sigma = at.alpha.tolist(), at.sigma.tolist()
    centres = [(2 * k + 1) / levels - 1 for k in range(levels)]
    means = []
    for i in range(b):
        for j in range(c):
            for p, x in enumerate(seen[i][j]):
                logs = [
                    flat[i][j][k][p] - (x - alpha[i] * centre) ** 2 / (2 * sigma[i] ** 2)
                    for k, centre in enumerate(centres)
                ]
                weights = [math.exp(value - max(logs)) for value in logs]
                means.append(sum(w * v for w, v in zip(weights, centres, strict=True)) / sum(weights))
    return torch.tensor(means, dtype=F64).view(b, c, *rest)


# --- the posterior mean --------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("path", [VPCosine(), Linear(), VE()], ids=repr)
def test_bayes_rule_in_loops(path, levels):
    at = path.at(times(0.002, 0.1, 0.5, 0.99))
    x = bin_centres(torch.randint(levels, (4, 3, 2, 2), generator=rng(1)), levels)
    x_t = append_dims(at.alpha, x) * x + append_dims(at.sigma, x) * normal(4, 3, 2, 2, seed=2)
    logits = 2 * normal(4, 3 * levels, 2, 2)
    expected = naive(logits, x_t, at, levels)
    torch.testing.assert_close(expected_levels(logits, x_t, at, levels), expected, rtol=0, atol=1e-10)
    single = expected_levels(logits.float(), x_t.float(), at, levels)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=2e-4)  # x_t itself is rounded


@pytest.mark.parametrize("t", [0.05, 0.4, 1.0])
def test_gradients(t):
    at = Linear().at(times(t, t / 2))
    logits = normal(2, 2 * 5, 3).requires_grad_()
    x_t = normal(2, 2, 3, seed=1).mul_(0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: expected_levels(a, b, at, 5), (logits, x_t))


def test_gradients_come_in_the_type_of_the_logits():
    at, x_t = Linear().at(times(0.3, 0.6)), normal(2, 1, 3, dtype=torch.float32)
    half = normal(2, 17, 3, seed=1).bfloat16().requires_grad_()
    full = half.detach().float().requires_grad_()
    means = [expected_levels(logits, x_t, at, 17) for logits in (half, full)]
    assert torch.equal(*means) and means[0].dtype == torch.float32
    for mean in means:
        mean.square().sum().backward(retain_graph=True)
    assert half.grad.dtype == torch.bfloat16 and torch.equal(half.grad, full.grad.bfloat16())
    full.grad = None
    means[1].square().sum().backward()
    assert torch.equal(half.grad, full.grad.bfloat16())  # what was kept for it is not used up


def test_autocast_changes_nothing():
    at, x_t = VPCosine().at(times(0.01, 0.5)), normal(2, 3, 4, dtype=torch.float32)
    logits = normal(2, 3 * 256, 4, seed=1, dtype=torch.float32)
    expected = expected_levels(logits, x_t, at, 256)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(expected_levels(logits, x_t, at, 256), expected)


# --- both ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", LEVELS)
def test_where_no_data_are_left_only_the_network_counts(levels):
    at, x_t = Linear().at(times(1.0)), 3 * normal(1, 2, 4, dtype=torch.float32)
    logits = normal(1, 2 * levels, 4, seed=1, dtype=torch.float32).requires_grad_()
    mean = expected_levels(logits, x_t.requires_grad_(), at, levels)
    shares = logits.detach().double().view(1, 2, levels, 4).softmax(2)
    expected = (shares * bin_centres(torch.arange(levels), levels)[:, None]).sum(2)
    torch.testing.assert_close(mean.detach().double(), expected, rtol=0, atol=1e-6)
    mean.sum().backward()
    assert logits.grad.isfinite().all() and not x_t.grad.any()


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("t", [1e-4, 1e-6])
def test_small_noise_rounds_to_the_level(levels, t):
    """Whatever the network says, within reason."""
    at = Linear().at(times(t))
    x = bin_centres(torch.arange(levels), levels, torch.float32)[None, None]
    x_t = at.alpha.float() * x + at.sigma.float() * normal(1, 1, levels, dtype=torch.float32)
    logits = 20 * normal(1, levels, levels, seed=1, dtype=torch.float32)
    logits.requires_grad_()
    mean = expected_levels(logits, x_t, at, levels)
    assert torch.equal(mean, x)
    mean.sum().backward()
    assert not logits.grad.any()


# --- the bound -----------------------------------------------------------------------------------------------


def denoiser(path, logits, levels):
    """A network that looks at nothing: `logits` `[c * levels, h, w]` for whatever image."""

    def denoise(x_t, t):
        at = path.at(t)
        x = expected_levels(logits.to(x_t).expand(len(x_t), -1, -1, -1), x_t, at, levels)
        return to_prediction(x_t, x, at, DataTarget())

    return denoise


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("path", "first"), [(VPCosine(), 2e-5), (Linear(), 5e-4)], ids=repr)
def test_the_bound_is_the_probability_that_blind_logits_mean(path, first, levels):
    """Exactly (Guo, Shamai & Verdu 2005): noise that hides a level costs what the level was worth."""
    n, logits = 1500 if levels == 256 else 5000, 1.5 * normal(levels, 1, 2)
    log_p = logits.log_softmax(0)  # [levels, 1, 2]
    images = torch.randint(levels, (n, 1, 1, 2), generator=rng(1))
    truth = log_p[:, 0].gather(0, images[:, 0, 0]).sum(1)
    bound = diffusion_bound(
        denoiser(path, logits, levels), path, images, levels, t_min=first, times=48, generator=rng(2)
    )
    gap = bound.nats - truth
    error = gap.std().item() / n**0.5
    assert abs(gap.mean().item()) < 4 * error < -0.03 * truth.mean().item()
    by_level = [gap[images[:, 0, 0, 0] == k] for k in (0, levels - 1)]
    for part in by_level if levels < 256 else []:  # of each level, not only in the mean
        assert abs(part.mean().item()) < 4 * part.std().item() / len(part) ** 0.5


def test_a_fresh_network_costs_log_levels():
    path, levels, n = VPCosine(), 17, 5000
    images = torch.randint(levels, (n, 1, 1, 2), generator=rng())
    logits = torch.zeros(levels, 1, 2)
    bound = diffusion_bound(
        denoiser(path, logits, levels), path, images, levels, t_min=2e-5, times=32, generator=rng(1)
    )
    bits = -bound.nats / (2 * math.log(2))
    assert abs(bits.mean().item() - math.log2(levels)) < 4 * bits.std().item() / n**0.5 < 0.1


def test_coefficients_may_be_shared_by_all_images():
    """Times may be 0-dimensional."""
    logits, x_t = normal(3, 2 * 5, 2), normal(3, 2, 2, seed=1)
    one = Linear().at(torch.tensor(0.3, dtype=F64))
    each = Coefficients(*(c.expand(3) for c in one))
    ours = expected_levels(logits, x_t, one, 5)
    torch.testing.assert_close(ours, expected_levels(logits, x_t, each, 5))


# --- in a model ------------------------------------------------------------------------------------------------


class Recorder(nn.Module):
    """Says nothing and remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, x, c_noise, cond=None):
        self.x, self.t, self.cond = x, c_noise.double() / 1000, cond
        return self.nothing * x


class Blind(nn.Module):
    """The same logits whatever it sees."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x, c_noise, cond=None):
        return self.logits.expand(len(x), *self.logits.shape)


def test_the_elbo_loss_of_levels_is_the_bound_itself():
    """With logits that are blind, -log of their probability: from the first step on every bit counts."""
    n, levels = 60_000, GREY.levels
    model = create("ddpm-likelihood", GREY, "tiny", protocol=BoundProtocol(t_min=2e-5, times=32))
    logits = torch.randn(levels, 2, 2, generator=rng())
    model.network = Blind(logits)
    images = torch.randint(levels, (n, 1, 2, 2), generator=rng(1), dtype=torch.uint8)
    truth = logits.double().log_softmax(0).gather(0, images[:, 0].long()).flatten(1).sum(1)
    loss = model.loss(Batch(images), generator=rng(2)).total.double() * GREY.dims
    for ours, least in ((loss, 0.1), (-model.log_likelihood(images[:3000], generator=rng(3)).nats, 0.05)):
        gap = ours + truth[: len(ours)]
        assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5 < -least * truth.mean()


@pytest.mark.parametrize("levels", LEVELS)
def test_images_become_bin_centres_and_back(levels):
    model = create("ddpm-likelihood", DataSpec((1, 1, levels), levels), "tiny")
    images = torch.arange(levels, dtype=torch.uint8).view(1, 1, 1, levels)
    x = model.scale.centres(images)
    torch.testing.assert_close(x, bin_centres(images, levels, torch.float32))
    assert x.dtype == torch.float32 and torch.equal(model.scale.images(x), images)
    beyond = model.scale.images(torch.tensor([[-1.5, 1.5]]))
    assert beyond.tolist() == [[0, levels - 1]] and beyond.dtype == torch.uint8


def test_real_data_are_taken_as_they_are():
    model = create("flow-likelihood", VECTORS, "tiny", dequantised=True)
    x = 5 * normal(4, 2, dtype=torch.float32)
    assert torch.equal(model.scale.centres(x), x) and torch.equal(model.scale.images(x), x)
    model.network = Recorder()
    model.loss(Batch(x), generator=rng())
    eps, t = normal_noise(x, rng()), model.network.t[:, None]
    torch.testing.assert_close(model.network.x, ((1 - t) * x + t * eps).float())


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", ["flow", "flow-likelihood"])
def test_training_data_fill_their_bins_or_stay_in_the_middle(name, levels):
    spec, g = DataSpec((1, 4, levels), levels), rng()
    model, images = create(name, spec, "tiny"), torch.arange(levels, dtype=torch.uint8).expand(200, 1, 4, -1)
    model.network = Recorder()
    model.loss(Batch(images), generator=rng())
    if model.config.dequantised:
        UniformDequantisation().draw(images, levels, g)  # drawn before the noise
    early = model.network.t < 0.5
    t = model.network.t[early].view(-1, 1, 1, 1)
    eps = normal_noise(model.scale.centres(images), g)[early]
    share = ((model.network.x[early] - t * eps) / (1 - t) - bin_centres(images, levels)[early]) * levels
    rounding = 1e-6 * levels
    assert share.abs().max() < (1 if model.config.dequantised else 0) + rounding
    assert share.var() == pytest.approx(1 / 3 if model.config.dequantised else 0.0, rel=0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "spec", "words"),
    [
        ({"levels_head": True, "protocol": OdeProtocol()}, VECTORS, "have no levels"),
        ({"protocol": BoundProtocol()}, VECTORS, "have no levels"),
        ({"cond_dropout": 1.0}, GREY, "cond_dropout of DiffusionConfig must be a number from 0 to below 1"),
        ({"cond_dropout": -0.1}, GREY, "cond_dropout of DiffusionConfig must be a number from 0 to below 1"),
    ],
)
def test_what_does_not_fit_is_refused(options, spec, words):
    with pytest.raises(GenzooError, match=words) as error:
        DiffusionConfig(network=MLPConfig(width=16), **options).build(spec)
    assert "\n" not in str(error.value)


# --- figures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, LikelihoodKind.LOWER_BOUND) for name in ("ddpm", "ddpm-likelihood", "edm")),
        *((name, LikelihoodKind.ESTIMATE) for name in ("flow", "ot-flow", "flow-likelihood")),
    ],
)
def test_kinds(name, kind):
    assert create(name, GREY, "tiny").likelihood is kind
    assert create(name, VECTORS, "tiny").likelihood is LikelihoodKind.ESTIMATE


def test_a_sum_of_noisy_figures_stays_a_lower_bound():
    n, scale = 40_000, 1.5
    true = torch.tensor([-3.0, -3.5, -6.0, -4.0], dtype=F64)[:, None].expand(4, n)

    def figures(nats, stderr=None):
        return LogLikelihood(nats.flatten(), LikelihoodKind.LOWER_BOUND, GREY, stderr)

    noisy = [true + scale * torch.randn(4, n, generator=rng(s), dtype=F64) for s in (0, 1)]
    first, again = figures(noisy[0]), figures(noisy[1], torch.full((4 * n,), scale, dtype=F64))
    truth = true[:, 0].logsumexp(0) - math.log(4)
    total, plain = summed_over_classes(first, again, 4), summed_over_classes(first, first, 4).nats
    mean, error = total.nats.mean(), total.nats.std() / n**0.5
    assert mean + 3 * error < truth and plain.mean() > truth + 0.2
    torch.testing.assert_close(plain, noisy[0].logsumexp(0) - math.log(4))
    q = noisy[0].softmax(0)
    centre = (q * (true - q.log())).sum(0) - math.log(4)
    assert abs(((total.nats - centre) / total.stderr).var() - 1) < 0.05
    sure = figures(true)
    torch.testing.assert_close(summed_over_classes(sure, sure, 4).nats, truth.expand(n))


def test_a_bound_over_classes_takes_fresh_noise_for_its_second_figures(monkeypatch):
    asked, plain = [], BoundProtocol.measure
    monkeypatch.setattr(BoundProtocol, "measure", lambda *a: asked.append(plain(*a)) or asked[-1])
    model = create("ddpm", replace(GREY, cond="class", cond_size=3), "tiny")
    answer = model.log_likelihood(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), generator=rng())
    *first, again = asked
    assert answer.nats.shape == answer.stderr.shape == (2,) and answer.kind is LikelihoodKind.LOWER_BOUND
    assert len(first) == 3 and not torch.equal(torch.cat([a.nats for a in first]), again.nats)


def test_answers_are_joined():
    """Floats, and lists of them, are averaged over images; what is no float is the protocol."""

    def part(n, kind, stderr, **details):
        return LogLikelihood(
            torch.arange(float(n)), kind, GREY, stderr, {"steps": 7, "solver": "rk", **details}
        )

    parts = [
        part(1, LikelihoodKind.EXACT, torch.ones(1), kl=2.0, rates=[1.0, 5.0], ks=[3, 4], nothing=None),
        part(
            3,
            LikelihoodKind.LOWER_BOUND,
            2 * torch.ones(3),
            kl=6.0,
            rates=[2.0, 1.0],
            ks=[3, 4],
            nothing=None,
        ),
    ]
    whole = LogLikelihood.cat(parts)
    assert whole.nats.tolist() == [0, 0, 1, 2] and whole.nats.dtype == F64
    assert whole.stderr.tolist() == [1, 2, 2, 2] and whole.kind is LikelihoodKind.LOWER_BOUND
    kept = {"steps": 7, "solver": "rk", "ks": [3, 4], "nothing": None}
    assert whole.details == {**kept, "kl": 5.0, "rates": [1.75, 2.0]} and whole.spec == GREY
    assert LogLikelihood.cat([parts[0], part(2, LikelihoodKind.EXACT, None, kl=0.0, rates=[0.0, 0.0], ks=[3, 4],
                                             nothing=None)]).stderr is None  # fmt: skip


def test_a_likelihood_without_time_judges_one_chunk():
    """Ten images drawn from all, not the first ten."""
    images = (torch.arange(200) % 17).to(torch.uint8).view(200, 1, 1, 1).expand(-1, 1, 2, 2)
    model, seen = create("ddpm", GREY, "tiny", protocol=BoundProtocol(t_min=1e-3, times=2)), []
    options = {"max_seconds": 0, "progress": seen.append}
    report = evaluate_likelihood(model, TensorSplit(images), generator=rng(), **options)
    assert report.images == 10 and seen == [10]
    assert evaluate_likelihood(model, TensorSplit(images), chunk=4, **options).images == 4
    other = evaluate_likelihood(model, TensorSplit(images), generator=rng(1), **options)
    assert report.nats != other.nats
    assert evaluate_likelihood(model, TensorSplit(images[:30]), max_seconds=1e9).images == 30


@pytest.mark.parametrize("name", ["flow", "ddpm", "ddpm-likelihood"])
@pytest.mark.parametrize(
    "spec", [DataSpec((1, 4, 4), 17), DataSpec((1, 4, 4), 17, "class", 3), VECTORS], ids=str
)
def test_of_no_images_there_is_nothing_to_say(name, spec):
    model = create(name, spec, "tiny")
    none = torch.zeros(0, *spec.shape, dtype=torch.uint8 if spec.levels else torch.float32)
    assert model.sample(0).shape == (0, *spec.shape)
    for cond in (None, torch.zeros(0, dtype=torch.long)) if spec.cond else (None,):
        answer = model.log_likelihood(none, cond)
        assert answer.nats.shape == (0,) and answer.kind is model.likelihood
