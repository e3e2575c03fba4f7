"""Analytic densities: normalised, sampled as they say, and exact against independent references."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from genzoo.core.errors import GenzooError
from genzoo.data import (
    BernoulliTemplates,
    DiscretisedMixture,
    Gaussian,
    GaussianGrid,
    GaussianMixture,
    load_data,
)

DENSITIES = [
    Gaussian(),
    Gaussian(mean=(0.0, 1.0, -2.0), covariance=((2.0, 0.3, 0.0), (0.3, 1.0, -0.4), (0.0, -0.4, 0.5))),
    GaussianMixture(),
    GaussianGrid(side=3),
    BernoulliTemplates(size=6),
    DiscretisedMixture(size=5),
]


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_image(size: int, levels: int) -> torch.Tensor:
    grids = itertools.product(range(levels), repeat=size * size)
    return torch.tensor(list(grids), dtype=torch.uint8).reshape(-1, 1, size, size)


@pytest.mark.parametrize("density", [BernoulliTemplates(size=3), DiscretisedMixture(size=2, levels=5)])
def test_probabilities_of_all_images_sum_to_one(density):
    images = every_image(density.size, density.spec.levels)
    assert density.log_prob(images).exp().sum().item() == pytest.approx(1, abs=1e-10)


def test_discretised_mixture_sums_to_one_per_pixel_at_full_size():
    table = DiscretisedMixture()._table
    torch.testing.assert_close(table.exp().sum(2), torch.ones(table.shape[:2], dtype=torch.float64))
    assert table.isfinite().all()


@pytest.mark.parametrize("density", [BernoulliTemplates(size=2), DiscretisedMixture(size=1, levels=16)])
def test_sample_frequencies_match_probabilities(density):
    images = every_image(density.size, density.spec.levels)
    p = density.log_prob(images).exp().numpy()
    drawn = density.sample(100_000, rng(1)).flatten(1).long()
    place = density.spec.levels ** torch.arange(drawn.shape[1] - 1, -1, -1)
    counts = torch.bincount((drawn * place).sum(1), minlength=len(p)).numpy()
    often = p * 100_000 > 5  # rare images are pooled, as the chi-squared test asks for
    seen = np.append(counts[often], counts[~often].sum())
    expected = np.append(p[often], p[~often].sum()) * 100_000
    if expected[-1] < 5:
        assert seen[-1] < 25
        seen, expected = seen[:-1], expected[:-1] * seen[:-1].sum() / expected[:-1].sum()
    assert stats.chisquare(seen, expected).pvalue > 1e-4


@pytest.mark.parametrize("density", DENSITIES[:2])
def test_gaussian_agrees_with_scipy(density):
    x = density.sample(200, rng(0)) * 3
    reference = stats.multivariate_normal(density.mean, density.covariance).logpdf(x.double().numpy())
    np.testing.assert_allclose(density.log_prob(x).numpy(), reference, atol=1e-10)


def test_gaussian_moments():
    density = Gaussian()
    x = density.sample(200_000, rng(3)).double()
    np.testing.assert_allclose(x.mean(0), density.mean, atol=0.01)
    np.testing.assert_allclose(x.T.cov(), density.covariance, atol=0.015)


@pytest.mark.parametrize(
    "density",
    [GaussianMixture(components=3, radius=1.0, scale=0.5), GaussianGrid(side=2, spacing=2.0, scale=0.5)],
    ids=lambda d: type(d).__name__,
)
def test_round_gaussians_integrate_to_one_and_agree_with_scipy(density):
    axis = torch.linspace(-5, 5, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    p = density.log_prob(grid).exp().reshape(401, 401).numpy()
    assert integrate.trapezoid(integrate.trapezoid(p, axis), axis) == pytest.approx(1, abs=1e-8)
    parts = [stats.multivariate_normal(m.numpy(), 0.25 * np.eye(2)).pdf(grid[:50]) for m in density.means]
    np.testing.assert_allclose(density.log_prob(grid[:50]).exp().numpy(), np.mean(parts, 0), rtol=1e-10)


@pytest.mark.parametrize("density", [GaussianMixture(), GaussianGrid()], ids=lambda d: type(d).__name__)
def test_round_gaussians_are_all_visited_and_as_wide_as_they_say(density):
    distance, nearest = torch.cdist(density.sample(8000, rng(0)).double(), density.means).min(1)
    counts = torch.bincount(nearest, minlength=len(density.means))
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4
    within = (distance <= 3 * density.scale).double().mean().item()
    assert within == pytest.approx(1 - math.exp(-4.5), abs=0.005)


def test_gaussian_grid_is_centred_and_evenly_spaced():
    means = GaussianGrid(side=3, spacing=2.0).means
    assert {tuple(m) for m in means.tolist()} == {(a, b) for a in (-2, 0, 2) for b in (-2, 0, 2)}


def test_discretised_logistic_agrees_with_scipy():
    density = DiscretisedMixture(size=2, components=1, levels=7)
    mu, s = density._locations[0].numpy(), float(density._scales[0])
    upper = stats.logistic.cdf(np.append(np.arange(6) + 0.5, np.inf)[None], mu[:, None], s)
    p = np.diff(upper, prepend=0)  # the edges take the tails
    images = every_image(2, 7)
    reference = np.prod([p[i][images.flatten(1)[:, i].numpy()] for i in range(4)], axis=0)
    np.testing.assert_allclose(density.log_prob(images).exp().numpy(), reference, atol=1e-12)
    tail = stats.logistic.logsf(5.5, mu, s)  # far beyond what a difference of two CDFs can tell from 0
    np.testing.assert_allclose(density._table[0, :, -1].numpy(), tail, rtol=1e-12)


def test_bernoulli_templates_are_smooth_distinct_and_within_bounds():
    density = BernoulliTemplates()
    p = density.templates
    assert p.min() >= 0.02 and p.max() <= 0.98 and p.max() > 0.97
    pictures = p.reshape(10, 28, 28)
    assert pictures.diff(dim=1).abs().max() < 0.25
    assert torch.pdist(p).min() > 1


@pytest.mark.parametrize("density", DENSITIES, ids=lambda d: type(d).__name__)
def test_entropy_of_independent_draws_agrees(density):
    a, b = (-density.log_prob(density.sample(4000, rng(s))) for s in (10, 11))
    stderr = math.sqrt((a.var() + b.var()).item() / 4000)
    assert abs((a.mean() - b.mean()).item()) < 4 * stderr
    assert a.dtype == torch.float64 and a.shape == (4000,)


def test_gaussian_entropy_closed_form():
    density = Gaussian()
    entropy = stats.multivariate_normal(density.mean, density.covariance).entropy()
    drawn = -density.log_prob(density.sample(100_000, rng(0)))
    assert drawn.mean().item() == pytest.approx(entropy, abs=0.015)


@pytest.mark.parametrize("density", DENSITIES, ids=lambda d: type(d).__name__)
def test_sampling_is_by_the_generator_alone(density):
    before = torch.get_rng_state()
    first, again, other = (density.sample(20, rng(s)) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape[1:] == density.spec.shape
    assert first.dtype == (torch.float32 if density.spec.levels is None else torch.uint8)


@pytest.mark.parametrize(
    "name", ["gaussian", "gaussian-mixture", "gaussian-grid", "bernoulli-templates", "discretised-mixture"]
)
def test_load_toy(name):
    data = load_data(f"toy:{name}")
    again = load_data(f"toy:{name}")
    assert [len(s) for s in (data.train, data.val, data.test)] == [20_000, 1_000, 2_000]
    assert torch.equal(data.train.images, again.train.images)
    assert torch.equal(data.log_prob(data.test.images), data.truth.log_prob(data.test.images))
    assert not torch.equal(data.train.images[:1000], data.val.images)
    val, test = (data.log_prob(s.images) for s in (data.val, data.test))
    assert abs((val.mean() - test.mean()).item()) < 4 * math.sqrt(
        (val.var() / 1000 + test.var() / 2000).item()
    )


def test_log_prob_refuses_what_does_not_fit():
    with pytest.raises(GenzooError, match=r"shape \(n, 1, 3, 3\)"):
        BernoulliTemplates(size=3).log_prob(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(GenzooError, match=r"levels 0\.\.1"):
        BernoulliTemplates(size=3).log_prob(torch.full((2, 1, 3, 3), 2))
    with pytest.raises(GenzooError, match="no labels"):
        load_data("toy:gaussian", cond="class")
