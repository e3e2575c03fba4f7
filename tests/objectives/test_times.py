"""Timestep distributions: their moments, and that weights leave the mean of a loss as it is."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from genzoo.core.config import from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.objectives.denoising.paths import (
    VE,
    DiscreteBetas,
    Linear,
    NoiseTarget,
    Trigonometric,
    VPCosine,
    VPLinear,
)
from genzoo.objectives.denoising.times import (
    DrawnTimes,
    Importance,
    LogitNormal,
    LogNormalSigma,
    StratifiedTimes,
    UniformLogSNR,
    UniformTimes,
)
from genzoo.objectives.denoising.weighting import ELBOWeighting

PATHS = [VPLinear(), VPCosine(), Trigonometric(), DiscreteBetas(), Linear(), VE()]
LAWS = [UniformTimes(), StratifiedTimes(), LogitNormal(), LogNormalSigma(), Importance(8)]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_close(actual, expected, tolerance=1e-9):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_times_are_float64_between_first_and_one(law, path):
    sampler = law.build()
    state = torch.get_rng_state()
    drawn = sampler.draw(1000, path, rng(), t_min=0.01)
    assert drawn.times.dtype == drawn.weights.dtype == torch.float64
    assert drawn.times.shape == drawn.weights.shape == (1000,)
    assert (drawn.times >= 0.01).all() and (drawn.times <= 1).all()
    assert torch.equal(sampler.draw(1000, path, rng(), t_min=0.01).times, drawn.times)
    assert torch.equal(torch.get_rng_state(), state)
    assert sampler.draw(4, path, rng()).t_min == path.t_min
    assert drawn.unbiased == (not isinstance(law, (LogitNormal, LogNormalSigma)))


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_laws_pass_through_json(law):
    assert from_json(to_json(law), [type(law)]) == law


def test_uniform_times_are_uniform():
    drawn = UniformTimes().draw(5000, Linear(), rng(), t_min=0.2)
    assert stats.kstest(drawn.times.numpy(), stats.uniform(0.2, 0.8).cdf).pvalue > 1e-3
    assert_close(drawn.weights, torch.full_like(drawn.times, 0.8))


def test_stratified_times_fill_every_stratum_in_random_order():
    n = 64
    drawn = [StratifiedTimes().draw(n, Linear(), rng(seed), t_min=0.1).times for seed in range(400)]
    strata = torch.stack([((t - 0.1) / 0.9 * n).floor().long() for t in drawn])
    assert torch.equal(strata.sort(1).values, torch.arange(n).expand(400, n))
    of_first_image = torch.stack(drawn)[:, 0].numpy()
    assert stats.kstest(of_first_image, stats.uniform(0.1, 0.9).cdf).pvalue > 1e-3
    inside = ((torch.stack(drawn)[:4] - 0.1) / 0.9 * n).frac().flatten().numpy()
    assert stats.kstest(inside, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("path", [VPLinear(), VPCosine(), DiscreteBetas(), VE()], ids=repr)
def test_uniform_log_snr_is_uniform_and_unbiased(path):
    drawn = UniformLogSNR().draw(4000, path, rng(), t_min=0.01)
    high, low = path.log_snr(torch.tensor([0.01, 1.0], dtype=torch.float64)).tolist()
    share = (path.log_snr(drawn.times).numpy() - low) / (high - low)
    assert np.abs(np.sort(share) - (np.arange(4000) + 0.5) / 4000).max() < 1 / 4000
    each = (drawn.weights * drawn.times.exp()).numpy()
    assert abs(each.mean() - (math.e - math.exp(0.01))) < 3 * each.std() / math.sqrt(4000)
    assert_close(
        drawn.weights * ELBOWeighting().of_noise(path.at(drawn.times), NoiseTarget()) * 2 / (high - low),
        drawn.times**0,
    )


@pytest.mark.parametrize(("path", "first"), [(Linear(), 0.1), (VPLinear(), 0.0)])
def test_uniform_log_snr_needs_finite_ends(path, first):
    with pytest.raises(GenzooError, match="finite"):
        UniformLogSNR().draw(4, path, rng(), t_min=first)


def test_logit_normal_times():
    times = LogitNormal(0.5, 0.8).draw(5000, Linear(), rng(), t_min=0.1).times
    logits = torch.logit((times - 0.1) / 0.9).numpy()
    assert stats.kstest(logits, stats.norm(0.5, 0.8).cdf).pvalue > 1e-3


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_log_normal_sigma_has_edms_law_on_every_path(path):
    times = LogNormalSigma().draw(5000, path, rng(), t_min=1e-6).times
    log_sigma = -0.5 * path.log_snr(times)
    assert stats.kstest(log_sigma.numpy(), stats.norm(-1.2, 1.2).cdf).pvalue > 1e-3


def test_log_normal_sigma_beyond_the_path_is_taken_at_its_ends():
    times = LogNormalSigma(mean=10.0, std=0.1).draw(5, VE(), rng()).times
    assert times.tolist() == [1.0] * 5


# --- learned importance --------------------------------------------------------------------------------------------


def steep(t):
    """A loss like a bound's: large near the data."""
    return 1 / (t + 0.02)


def taught(config, batches=200, n=64, first=0.0):
    sampler, generator = config.build(), rng(9)
    for _ in range(batches):
        drawn = sampler.draw(n, Linear(), generator, t_min=first)
        sampler.update(drawn, steep(drawn.times))
    return sampler


def test_importance_starts_uniform_and_waits_for_every_interval():
    sampler = Importance(bins=4, horizon=5).build()
    times = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
    for _ in range(20):
        sampler.update(DrawnTimes(times, torch.ones_like(times), 0.0, True), 5 * torch.ones(3))
    assert_close(sampler.masses, torch.full((4,), 0.25, dtype=torch.float64))
    assert sampler.seen.tolist() == [20, 20, 20, 0]


def test_importance_masses_follow_the_second_moment():
    """Constant losses in each interval: masses are their sizes, mixed with the uniform share."""
    sampler, sizes = (
        Importance(bins=4, horizon=5, uniform_fraction=0.1).build(),
        torch.tensor([1.0, -2, 3, 4]),
    )
    times = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64)
    for _ in range(20):
        sampler.update(DrawnTimes(times, torch.ones_like(times), 0.0, True), sizes)
    assert_close(sampler.masses, 0.9 * sizes.abs().double() / 10 + 0.1 / 4, 1e-6)


def test_importance_averages_plainly_then_exponentially():
    sampler = Importance(bins=2, horizon=4).build()
    time = torch.tensor([0.2], dtype=torch.float64)
    expected = 0.0
    for i, loss in enumerate([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]):
        sampler.update(DrawnTimes(time, time, 0.0, True), torch.tensor([loss]))
        expected += (loss**2 - expected) / min(i + 1, 4)
        assert sampler.second_moments[0].item() == pytest.approx(expected, rel=1e-5)


def test_importance_leaves_out_losses_that_are_no_numbers():
    sampler = Importance(bins=2, horizon=1).build()
    times = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)
    sampler.update(DrawnTimes(times, times, 0.0, True), torch.tensor([2.0, math.nan, math.inf]))
    assert sampler.second_moments.tolist() == [4.0, 0.0] and sampler.seen.tolist() == [1, 0]


@pytest.mark.parametrize("first", [0.0, 0.2])
def test_importance_weighted_mean_is_the_uniform_mean(first):
    sampler = taught(Importance(bins=32), first=first)
    means = []
    for seed in range(400):
        drawn = sampler.draw(16, Linear(), rng(seed), t_min=first)
        means.append((drawn.weights * steep(drawn.times)).mean().item())
    integral = math.log(1.02 / (first + 0.02))
    assert abs(np.mean(means) - integral) < 3 * np.std(means, ddof=1) / math.sqrt(400)
    assert np.std(means) < 0.05 * integral


def test_importance_lowers_the_variance():
    sampler = taught(Importance(bins=32))
    drawn, uniform = sampler.draw(4000, Linear(), rng()), UniformTimes().draw(4000, Linear(), rng())
    assert (drawn.weights * steep(drawn.times)).std() < 0.2 * steep(uniform.times).std()


def test_importance_times_follow_the_masses():
    sampler = taught(Importance(bins=8))
    times = torch.cat([sampler.draw(50, Linear(), rng(seed)).times for seed in range(100)])
    counts = torch.bincount((times * 8).long().clamp(max=7), minlength=8).numpy()
    assert np.abs(counts / 5000 - sampler.masses.numpy()).max() < 0.005
    weights = sampler.draw(50, Linear(), rng()).weights
    assert weights.max() <= 1 / Importance().uniform_fraction


def test_importance_remembers_through_a_state_dict():
    sampler, fresh = taught(Importance(bins=8)), Importance(bins=8).build()
    assert not torch.equal(fresh.masses, sampler.masses)
    fresh.load_state_dict(sampler.state_dict())
    assert torch.equal(fresh.draw(9, Linear(), rng()).times, sampler.draw(9, Linear(), rng()).times)
    assert list(sampler.parameters()) == []
