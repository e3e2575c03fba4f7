"""The evidence lower bound's formulas against hand-computed values, closed forms and independent libraries."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import distributions

from genzoo.core.config import from_json, to_json
from genzoo.objectives.elbo import (
    Balanced,
    Capacity,
    ConstantBeta,
    Cyclical,
    DiagonalGaussian,
    DiagonalMixture,
    FreeBits,
    ImportanceBound,
    WarmUp,
    gaussian_kl,
    importance_weighted_bound,
    importance_weighted_stderr,
    kl_to_mixture,
)

KL = torch.tensor([[1.0, 0.2], [3.0, 0.4]])  # two examples, two groups
WEIGHTINGS = [ConstantBeta(), WarmUp(), Cyclical(), FreeBits(), Capacity(), Balanced()]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_gaussian(*shape, seed=0):
    g = generator(seed)
    draw = lambda: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    return DiagonalGaussian(draw(), 0.5 * draw())


def random_mixture(n, m, d, seed=0):
    components = random_gaussian(n, m, d, seed=seed)
    logits = torch.randn(n, m, generator=generator(seed + 1), dtype=torch.float64)
    return DiagonalMixture(components.mean, components.log_scale, logits.log_softmax(1))


def test_gaussian_kl_by_quadrature():
    q, p = stats.norm(0.3, 0.5), stats.norm(-1.0, 1.7)
    numeric, _ = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -6, 6)
    mean, scale = torch.tensor([[0.3, -1.0], [0.5, 1.7]], dtype=torch.float64)
    ours = gaussian_kl(*(DiagonalGaussian(mean[i], scale[i].log()) for i in (0, 1)))
    assert ours.item() == pytest.approx(numeric, abs=1e-8)


def test_gaussian_kl_equals_torch_and_monte_carlo():
    q, p = random_gaussian(1, 6, seed=1), random_gaussian(1, 6, seed=2)
    reference = distributions.kl_divergence(
        distributions.Normal(q.mean, q.log_scale.exp()), distributions.Normal(p.mean, p.log_scale.exp())
    )
    torch.testing.assert_close(gaussian_kl(q, p), reference)
    many = q.repeated(100_000)
    z = many.sample(generator())
    log_ratio = many.log_prob(z) - p.log_prob(z)
    stderr = log_ratio.std() / len(z) ** 0.5
    assert abs(log_ratio.mean() - reference.sum()) < 4 * stderr


def test_kl_to_a_mixture_of_one_is_closed_and_to_more_is_estimated():
    q = random_gaussian(3, 4)
    one, several = random_mixture(1, 1, 4), random_mixture(3, 5, 4)
    z = q.sample(generator())
    closed = gaussian_kl(q, DiagonalGaussian(one.mean[:, 0], one.log_scale[:, 0])).sum(1)
    torch.testing.assert_close(kl_to_mixture(q, one, z), closed)
    torch.testing.assert_close(kl_to_mixture(q, several, z), q.log_prob(z) - several.log_prob(z))


def torch_mixture(p, row):
    components = distributions.Independent(distributions.Normal(p.mean[row], p.log_scale[row].exp()), 1)
    weights = distributions.Categorical(logits=p.log_weights[row])
    return distributions.MixtureSameFamily(weights, components)


def test_mixture_log_prob_equals_torch():
    p, z = random_mixture(4, 5, 3), random_gaussian(4, 3, seed=5).mean
    expected = torch.stack([torch_mixture(p, i).log_prob(z[i]) for i in range(4)])
    torch.testing.assert_close(p.log_prob(z), expected)
    torch.testing.assert_close(p.repeated(3).log_prob(z.repeat(3, 1)), expected.repeat(3))
    torch.testing.assert_close(p.rows(slice(1, 3)).log_prob(z[1:3]), expected[1:3])


@pytest.mark.parametrize("components", [1, 4])
def test_mixture_samples_have_its_moments(components):
    p, n = random_mixture(1, components, 2), 50_000
    z, reference = p.sample(n, generator()), torch_mixture(p, 0)
    stderr = z.std(0) / n**0.5
    assert ((z.mean(0) - reference.mean).abs() < 4 * stderr).all()
    torch.testing.assert_close(z.var(0), reference.variance, rtol=0.05, atol=0)


def test_importance_weighted_bound_by_hand():
    weights = torch.tensor([[1.0, 2.0], [3.0, 2.0], [8.0, 2.0]], dtype=torch.float64)  # [K, b]
    log_weights = weights.log()
    torch.testing.assert_close(
        importance_weighted_bound(log_weights), torch.tensor([4.0, 2.0]).double().log()
    )
    sd = math.sqrt((9 + 1 + 16) / 2)
    expected = torch.tensor([sd / (math.sqrt(3) * 4), 0.0]).double()
    torch.testing.assert_close(importance_weighted_stderr(log_weights), expected)
    torch.testing.assert_close(importance_weighted_stderr(log_weights - 2000), expected)  # no underflow
    assert importance_weighted_stderr(log_weights[:1]).isnan().all()


def test_bound_rises_with_every_weight():
    """Burda et al. 2016, theorem 1, without noise: the bound of K beats the mean bound of its subsets."""
    log_weights = 3 * torch.randn(6, 50, generator=generator(), dtype=torch.float64)
    means = [
        torch.stack(
            [importance_weighted_bound(log_weights[list(s)]) for s in itertools.combinations(range(6), k)]
        ).mean(0)
        for k in range(1, 7)
    ]
    assert (torch.stack(means).diff(dim=0) > 0).all()


def test_stderr_is_the_spread_of_repeated_bounds():
    log_weights = 0.7 * torch.randn(200, 4000, generator=generator(), dtype=torch.float64)
    spread = importance_weighted_bound(log_weights).std()
    assert importance_weighted_stderr(log_weights).mean().item() == pytest.approx(spread.item(), rel=0.05)


def test_importance_bound_and_its_terms():
    log_prob = torch.tensor([[-3.0], [-5.0]])
    log_ratio = torch.tensor([[1.0], [0.0]])
    bound = ImportanceBound.of(log_prob, log_ratio)
    assert bound.nats.item() == pytest.approx(math.log((math.exp(-4) + math.exp(-5)) / 2))
    assert (bound.reconstruction.item(), bound.kl.item(), bound.elbo.item()) == (4.0, 0.5, -4.5)
    both = ImportanceBound.cat([bound, bound])
    assert both.nats.tolist() == [bound.nats.item()] * 2 and both.means()["elbo"] == -4.5
    assert ImportanceBound.cat([]).nats.shape == (0,)


def test_bound_over_classes_is_the_log_mean():
    g = generator()
    each = [
        ImportanceBound.of(*(torch.randn(8, 5, generator=g, dtype=torch.float64) - 3 for _ in range(2)))
        for _ in range(3)
    ]
    together = ImportanceBound.over_classes(each)
    p = np.exp([b.nats.numpy() for b in each]).mean(0)
    np.testing.assert_allclose(together.nats.numpy(), np.log(p), rtol=1e-12)
    p = np.exp([b.nats.numpy() for b in each])
    spread = np.sqrt(((p * [b.stderr.numpy() for b in each]) ** 2).sum(0)) / p.sum(0)
    np.testing.assert_allclose(together.stderr.numpy(), spread, rtol=1e-12)


@pytest.mark.parametrize("draws", [2, 5])
def test_the_elbo_over_classes_has_no_noise_of_its_own_in_an_exponent(draws):
    """Its mean is at most log-mean-exp of the classes' ELBOs, which it equals without noise."""
    n, elbos = 20_000, torch.tensor([-4.0, -4.5, -6.0], dtype=torch.float64)
    noise = 2.0 * torch.randn(3, draws, n, generator=generator(), dtype=torch.float64)
    limit = elbos.logsumexp(0) - math.log(3)
    for scale in (0.0, 1.0):
        each = [
            ImportanceBound.of(torch.full((draws, n), e) + scale * z, torch.zeros(draws, n))
            for e, z in zip(elbos, noise, strict=True)
        ]
        found = ImportanceBound.over_classes(each).elbo
        if scale == 0:
            torch.testing.assert_close(found, limit.expand(n))
        assert found.mean() < limit + 4 * found.std() / n**0.5 + 1e-9


@pytest.mark.parametrize(
    ("weighting", "progress", "expected"),
    [
        (ConstantBeta(4.0), 0.0, [4.8, 13.6]),
        (WarmUp(0.2), 0.0, [0.0, 0.0]),
        (WarmUp(0.2), 0.05, [0.3, 0.85]),
        (WarmUp(0.2, beta=2.0), 0.3, [2.4, 6.8]),
        (WarmUp(0.0), 0.0, [1.2, 3.4]),
        (Cyclical(4, 0.5), 0.0625, [0.6, 1.7]),  # a quarter of the first cycle: half-way up
        (Cyclical(4, 0.5), 0.1875, [1.2, 3.4]),
        (Cyclical(4, 0.5), 0.25, [0.0, 0.0]),  # the second cycle begins
        (Cyclical(4, 0.5), 0.5625, [0.6, 1.7]),
        (Cyclical(4, 0.5), 1.0, [1.2, 3.4]),
        (FreeBits(0.5), 0.3, [2.5, 2.5]),  # means 2.0 and 0.3, the latter lifted to 0.5
        (FreeBits(0.1), 0.3, [2.3, 2.3]),
        (FreeBits(2.5), 0.3, [5.0, 5.0]),  # of a KL of 1 and 3 it is the mean that is lifted
        (Capacity(3.0, 10.0, 0.5), 0.25, [3.0, 19.0]),  # C = 1.5
        (Capacity(3.0, 10.0, 0.5), 0.9, [18.0, 4.0]),
        (Balanced(0.4), 0.5, [1.2, 3.4]),
        # means 2.0 and 0.3, so gamma = (4.0, 0.6) / 2.3 at half strength
        (Balanced(0.4), 0.2, [0.5 * (4.0 + 0.12) / 2.3, 0.5 * (12.0 + 0.24) / 2.3]),
    ],
    ids=str,
)
def test_kl_weighting_by_hand(weighting, progress, expected):
    torch.testing.assert_close(weighting(KL, progress), torch.tensor(expected))


def test_free_bits_press_only_the_groups_above_the_floor():
    kl = KL.clone().requires_grad_()
    FreeBits(0.5)(kl, 1.0).mean().backward()
    assert kl.grad.tolist() == [[0.5, 0.0], [0.5, 0.0]]


def test_balancing_passes_no_gradient_through_its_weights():
    kl = KL.clone().requires_grad_()
    Balanced(0.4)(kl, 0.2).sum().backward()
    torch.testing.assert_close(kl.grad, torch.tensor([[2.0, 0.3]]).expand(2, 2) / 2.3)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda w: type(w).__name__)
def test_linear_weightings_are_those_that_scale_each_example(weighting):
    for progress in (0.01, 0.3, 1.0):
        alone = torch.cat([weighting(row[None], progress) for row in KL])
        twice = weighting(2 * KL, progress)
        scales = torch.allclose(weighting(KL, progress), alone) and torch.allclose(twice, 2 * alone)
        if weighting.linear:
            assert scales
        elif progress < 0.3:
            assert not scales


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda w: type(w).__name__)
def test_weightings_go_through_json(weighting):
    assert from_json(to_json(weighting)) == weighting
