"""Output distributions: they sum to one, agree with independent references and sample what they score."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.objectives import pixels
from genzoo.objectives.pixels import (
    Bernoulli,
    Categorical,
    DiscretisedGaussian,
    LogisticMixture,
    output_distribution,
)

GAUSSIANS = [DiscretisedGaussian(2), DiscretisedGaussian(256), DiscretisedGaussian(17, scale=0.1)]
ALL = [
    Bernoulli(),
    Categorical(2),
    Categorical(17),
    LogisticMixture(2, 3),
    LogisticMixture(256, 10),
    *GAUSSIANS,
]


def random_params(distribution, *shape, scale=2.0, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, distribution.n_params, generator=generator, dtype=dtype)


def all_log_probs(distribution, params):
    """`[n, p]` to `[n, levels]`."""
    levels = torch.arange(distribution.levels)
    each = params[:, None].expand(-1, distribution.levels, -1)
    return distribution.log_prob(each, levels.expand(len(params), -1))


@pytest.mark.parametrize("distribution", ALL, ids=repr)
@pytest.mark.parametrize("scale", [0.0, 2.0, 8.0])
def test_sums_to_one(distribution, scale):
    total = all_log_probs(distribution, random_params(distribution, 50, scale=scale)).double().logsumexp(-1)
    assert total.abs().max() < 5e-6


@pytest.mark.parametrize("distribution", ALL, ids=repr)
def test_float32_agrees_with_float64(distribution):
    params = random_params(distribution, 50, dtype=torch.float64)
    single = all_log_probs(distribution, params.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), all_log_probs(distribution, params), rtol=1e-4, atol=1e-4)


def test_logistic_mixture_equals_scipy():
    """Differences of scipy's logistic distribution function, the mixture written out, tails in the edge bins."""
    distribution = LogisticMixture(256, 4)
    params = random_params(distribution, 20, scale=0.5, dtype=torch.float64)
    logits, mean, log_scale = (p.numpy() for p in params.chunk(3, -1))
    mean = mean + (np.arange(4) + 0.5) / 2 - 1
    scale = np.exp(log_scale) / 8
    edges = (np.arange(257) - 0.5) * 2 / 255 - 1
    edges[0], edges[-1] = -np.inf, np.inf
    cdf = stats.logistic.cdf(edges[None, None], loc=mean[..., None], scale=scale[..., None])
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = (weights[..., None] * np.diff(cdf, axis=-1)).sum(1)
    np.testing.assert_allclose(all_log_probs(distribution, params).exp().numpy(), expected, atol=1e-12)


def test_logistic_mixture_keeps_its_digits_in_the_tails():
    """A narrow component far from the value: a difference of two sigmoids would be 0 and its log -inf."""
    distribution = LogisticMixture(256, 1)
    params = torch.tensor([[0.0, -0.9, -3.0]])
    x = torch.tensor([250])
    scale = math.exp(-3.0) / 2
    low, high = ((250 + s) * 2 / 255 - 1 + 0.9 for s in (-0.5, 0.5))
    expected = math.log(math.exp(-low / scale) - math.exp(-high / scale))  # logistic tail = exponential
    assert distribution.log_prob(params, x).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", [None, 0.05, 3.0])
def test_discretised_gaussian_equals_scipy(scale):
    """Differences of scipy's normal distribution function, the tails in the edge bins."""
    distribution = DiscretisedGaussian(256, scale)
    params = random_params(distribution, 40, scale=0.4, dtype=torch.float64)
    mean = params[:, :1].numpy()
    sd = np.full_like(mean, scale) if scale else np.exp(params[:, 1:].numpy()) / 2
    edges = (np.arange(257) - 0.5) * 2 / 255 - 1
    edges[0], edges[-1] = -np.inf, np.inf
    expected = np.diff(stats.norm.cdf(edges, mean, sd), axis=-1)
    np.testing.assert_allclose(all_log_probs(distribution, params).exp().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("value", [3, 252])
def test_discretised_gaussian_keeps_its_digits_in_both_tails(value):
    """90 standard deviations out, where a difference of distribution functions is 0: scipy's log of the tail."""
    distribution = DiscretisedGaussian(256, scale=0.02)
    params = torch.tensor([[0.9 if value < 128 else -0.9]])
    distance = abs(value * 2 / 255 - 1 - params.item())
    near, far = ((distance + s / 255) / 0.02 for s in (-1, 1))
    expected = stats.norm.logsf(near) + np.log1p(-np.exp(stats.norm.logsf(far) - stats.norm.logsf(near)))
    assert expected < -4000
    assert distribution.log_prob(params, torch.tensor([value])).item() == pytest.approx(expected, rel=1e-5)


def test_fixed_scale_is_squared_error_with_a_constant():
    """-log P = (v - mean)^2 / 2s^2 + log(s sqrt(2 pi) / bin) away from the ends, for bins much narrower than s."""
    distribution = DiscretisedGaussian(256, scale=0.1)
    params = torch.linspace(-0.5, 0.5, 50, dtype=torch.float64)[:, None]
    x = torch.linspace(80, 180, 50).round().long()
    squares = (x * 2 / 255 - 1 - params[:, 0]).square() / (2 * 0.1**2)
    expected = -squares - math.log(0.1 * math.sqrt(2 * math.pi) * 255 / 2)
    torch.testing.assert_close(distribution.log_prob(params, x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("distribution", GAUSSIANS, ids=repr)
def test_gaussian_gradients_agree_with_differences(distribution):
    params = random_params(distribution, 30, scale=1.5, dtype=torch.float64).requires_grad_()
    x = torch.arange(30) * (distribution.levels - 1) // 29
    assert torch.autograd.gradcheck(lambda p: distribution.log_prob(p, x), params)


@pytest.mark.parametrize("distribution", ALL, ids=repr)
@pytest.mark.parametrize("scale", [0.0, 0.3, 2.0, 8.0])
def test_mean_is_the_expected_level(distribution, scale):
    """sum_v v P(v) over all levels, whose end bins have open tails: wide components reach far beyond them."""
    params = random_params(distribution, 40, scale=scale, dtype=torch.float64)
    expected = all_log_probs(distribution, params).exp() @ torch.arange(distribution.levels).double()
    torch.testing.assert_close(distribution.mean(params), expected, rtol=1e-9, atol=1e-9)
    single = distribution.mean(params.float())
    assert single.dtype == torch.float32
    assert (single.double() - expected).abs().max() < 2e-4 * distribution.levels


@pytest.mark.parametrize("log_scale", [-8.0, -3.0, 1.0, 7.0])
@pytest.mark.parametrize("place", [-3.0, -1.0, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("distribution", [LogisticMixture(256, 1), DiscretisedGaussian()], ids=repr)
def test_mean_counts_the_open_tails(distribution, place, log_scale):
    """A component at the end of the range, or beyond it, has half of its mass, or most, in the end bin."""
    of_scale = [0.0, place, log_scale] if isinstance(distribution, LogisticMixture) else [place, log_scale]
    params = torch.tensor([of_scale], dtype=torch.float64)
    expected = all_log_probs(distribution, params).exp() @ torch.arange(256).double()
    assert distribution.mean(params).item() == pytest.approx(expected.item(), abs=1e-9)


def test_mean_of_a_few_edges_at_a_time(monkeypatch):
    distribution = LogisticMixture(256, 3)
    params = random_params(distribution, 5, 4, dtype=torch.float64)
    expected = distribution.mean(params)
    monkeypatch.setattr(pixels, "MOST_AT_ONCE", 7 * 60)
    torch.testing.assert_close(distribution.mean(params), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("distribution", ALL, ids=repr)
def test_means_of_a_batch_are_those_of_its_rows(distribution):
    params = random_params(distribution, 6, 2)
    rows = torch.cat([distribution.mean(row[None]) for row in params])
    torch.testing.assert_close(distribution.mean(params), rows, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("distribution", ALL, ids=repr)
def test_mean_is_single_precision_under_autocast(distribution):
    """In bf16 a level of 17 would be off by a twentieth."""
    params = random_params(distribution, 40)
    with torch.autocast("cpu", torch.bfloat16):
        found = distribution.mean(params)
    torch.testing.assert_close(found, distribution.mean(params), rtol=0, atol=0)


@pytest.mark.parametrize("distribution", ALL, ids=repr)
def test_location_is_the_mean_of_what_is_narrow(distribution):
    """Within a level where components are narrower than one, and where there are none the mean itself."""
    params = random_params(distribution, 40, scale=0.3, dtype=torch.float64)
    if isinstance(distribution, LogisticMixture):
        params[..., 2 * distribution.components :] = -20
    if isinstance(distribution, DiscretisedGaussian) and distribution.scale is None:
        params[..., 1] = -20
    near = 0.5 if isinstance(distribution, (LogisticMixture, DiscretisedGaussian)) else 0.0
    assert (distribution.location(params) - distribution.mean(params)).abs().max() <= near + 0.01


@pytest.mark.parametrize("distribution", [LogisticMixture(), DiscretisedGaussian()], ids=repr)
@pytest.mark.parametrize("levels", [0, 100, 255])
def test_gradients_are_finite_at_the_edges(levels, distribution):
    params = random_params(distribution, 100, scale=20.0).requires_grad_()
    distribution.log_prob(params, torch.full((100,), levels)).sum().backward()
    assert params.grad.isfinite().all() and params.grad.abs().sum() > 0


@pytest.mark.parametrize("distribution", [LogisticMixture(), DiscretisedGaussian()], ids=repr)
@pytest.mark.parametrize("extreme", [-1e4, -100.0, 60.0, 88.0, 200.0, 1e4])
def test_gradients_are_finite_at_any_scale(distribution, extreme):
    params = torch.zeros(3, distribution.n_params)
    scales = 2 * params.shape[1] // 3 if isinstance(distribution, LogisticMixture) else 1
    params[:, scales:] = extreme
    params.requires_grad_()
    log_prob = distribution.log_prob(params, torch.tensor([0, 128, 255]))
    log_prob.sum().backward()
    assert log_prob.isfinite().all() and params.grad.isfinite().all()
    assert all_log_probs(distribution, params.detach()).double().logsumexp(-1).abs().max() < 1e-4


@pytest.mark.parametrize("distribution", ALL, ids=repr)
def test_samples_follow_the_probabilities(distribution):
    """Chi-square of 20,000 draws at the 1e-4 level, levels with small expectation pooled."""
    params = random_params(distribution, 1, scale=1.0)
    n = 20_000
    draws = distribution.sample(params.expand(n, -1), generator=torch.Generator().manual_seed(1))
    assert draws.dtype == torch.long
    expected = n * all_log_probs(distribution, params)[0].double().exp().numpy()
    observed = np.bincount(draws.numpy(), minlength=distribution.levels)
    big = expected >= 10
    expected = np.append(expected[big], expected[~big].sum() + 1e-9)
    observed = np.append(observed[big], observed[~big].sum())
    assert ((observed - expected) ** 2 / expected).sum() < stats.chi2.ppf(1 - 1e-4, len(expected))


def test_bfloat16_parameters_are_scored_in_float32():
    params = random_params(Categorical(17), 8).bfloat16()
    log_prob = Categorical(17).log_prob(params, torch.arange(8))
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob, Categorical(17).log_prob(params.float(), torch.arange(8)))


@pytest.mark.parametrize(
    ("levels", "expected"),
    [(2, Bernoulli()), (32, Categorical(32)), (33, LogisticMixture(33)), (256, LogisticMixture(256))],
)
def test_auto_follows_the_levels(levels, expected):
    assert output_distribution("auto", DataSpec((1, 4, 4), levels)) == expected


def test_unknown_names_are_refused():
    with pytest.raises(GenzooError, match="unknown output distribution 'gauss'"):
        output_distribution("gauss", DataSpec((1, 4, 4)))
