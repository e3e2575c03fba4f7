"""Weightings against their papers' own formulas, the loss against closed forms, and the laws of times."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from genzoo.config import from_json, to_json
from genzoo.contract import GenzooError
from genzoo.objectives.denoising import (
    EDMWeighting,
    ELBOWeighting,
    MinSNR,
    SigmoidWeighting,
    SimpleNoise,
    TargetWeighting,
    denoising_loss,
)
from genzoo.objectives.times import (
    DrawnTimes,
    Importance,
    LogitNormal,
    LogNormalSigma,
    StratifiedTimes,
    UniformLogSNR,
    UniformTimes,
)
from genzoo.paths import (
    VE,
    DataTarget,
    DiscreteBetas,
    EDMTarget,
    Linear,
    NoiseTarget,
    Solved,
    Trigonometric,
    VelocityTarget,
    VPCosine,
    VPLinear,
    VTarget,
)

PATHS = [VPLinear(), VPCosine(), Trigonometric(), DiscreteBetas(), Linear(), VE()]
TARGETS = [NoiseTarget(), DataTarget(), VTarget(), VelocityTarget(), EDMTarget(0.7)]
WEIGHTINGS = [SimpleNoise(), TargetWeighting(), MinSNR(), EDMWeighting(), ELBOWeighting(), SigmoidWeighting()]
LAWS = [UniformTimes(), StratifiedTimes(), LogitNormal(), LogNormalSigma(), Importance(8)]
GRID = torch.linspace(0.0031, 0.9969, 60, dtype=torch.float64)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=rng(seed), dtype=dtype)


def close(actual, expected, tolerance=1e-9):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def predicting(solved, path, target):
    """A network that answers with these data and noise, in the terms of its target."""
    return lambda x_t, t: target.of(solved.x, solved.eps, path.at(t))


def wrong_guess(x, eps, path):
    """Data and noise that do not fit, but make up the same x_t, as any prediction's do."""
    at = path.at(GRID)
    eps_hat = eps + noise(*eps.shape, seed=5)
    return Solved(x + (at.sigma / at.alpha)[:, None] * (eps - eps_hat), eps_hat)


# --- weightings, each in the parametrisation of its paper ---------------------------------------------------------


def loss_on(path, target, weighting):
    """The loss of a wrong guess on GRID, beside the squared errors of its noise and its data."""
    x, eps = noise(len(GRID), 3), noise(len(GRID), 3, seed=1)
    guess = wrong_guess(x, eps, path)
    loss = denoising_loss(predicting(guess, path, target), x, path, target, weighting, GRID, eps)
    errors = [(a - b).square().sum(1) for a, b in zip(guess, (x, eps), strict=True)]
    return loss, errors[1], errors[0], path.at(GRID)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_simple_noise_is_ddpms_loss(path, target):
    loss, on_noise, _, _ = loss_on(path, target, SimpleNoise())
    close(loss, on_noise, 1e-7)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_target_weighting_is_the_plain_squared_error(path, target):
    x, eps = noise(len(GRID), 3), noise(len(GRID), 3, seed=1)
    loss = denoising_loss(lambda x_t, t: x_t.sin(), x, path, target, TargetWeighting(), GRID, eps)
    y = target.of(x, eps, path.at(GRID))
    close(loss, (y - path.mix(x, eps, GRID).sin()).square().sum(1))
    at = path.at(GRID)  # and the same weight in terms of the noise
    a, b = target.coefficients(at)
    det = at.alpha * b - at.sigma * a
    close(TargetWeighting().of_noise(at, target), (det / at.alpha) ** 2)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_min_snr_weighs_data_noise_and_v_as_hang_et_al(path):
    gamma = 5.0
    for target in (DataTarget(), NoiseTarget(), VTarget()):
        loss, _, on_data, at = loss_on(path, target, MinSNR(gamma))
        snr = (at.alpha / at.sigma) ** 2
        close(loss, snr.clamp(max=gamma) * on_data, 1e-7)
    preserving = Trigonometric()  # v's weight of the paper holds for preserved variance
    at = preserving.at(GRID)
    snr = (at.alpha / at.sigma) ** 2
    close(MinSNR(gamma).of_target(at, NoiseTarget()), snr.clamp(max=gamma) / snr)
    close(MinSNR(gamma).of_target(at, VTarget()), snr.clamp(max=gamma) / (snr + 1))


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_edm_weighting_is_the_one_of_karras(target):
    loss, _, on_data, at = loss_on(VE(), target, EDMWeighting(0.7))
    close(loss, (at.sigma**2 + 0.49) / (at.sigma * 0.7) ** 2 * on_data, 1e-7)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_edm_weighting_is_the_plain_error_of_edms_network(path):
    at = path.at(GRID)
    close(EDMWeighting(0.7).of_target(at, EDMTarget(0.7)), torch.ones_like(GRID))


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_elbo_weight_is_the_slope_of_log_snr(path):
    t = GRID.clone().requires_grad_()
    (slope,) = torch.autograd.grad(path.log_snr(t).sum(), t)
    torch.testing.assert_close(ELBOWeighting().of_noise(path.at(GRID), NoiseTarget()), -0.5 * slope)


def test_elbo_weight_in_terms_of_data_is_the_slope_of_snr():
    """-1/2 SNR'(t) |x - x_hat|^2 (Kingma et al. 2021)."""
    path, t = VPCosine(), GRID.clone().requires_grad_()
    (slope,) = torch.autograd.grad(path.log_snr(t).exp().sum(), t)
    torch.testing.assert_close(ELBOWeighting().of_target(path.at(GRID), DataTarget()), -0.5 * slope)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_sigmoid_weighting_depends_on_the_log_snr_alone(path):
    """1/2 int sigmoid(shift - l) dl between two log-SNRs is a difference of softplus on every path."""
    high, low, shift = 4.0, -6.0, 1.5
    ends = torch.tensor([high, low], dtype=torch.float64)
    first, last = path.time_of(ends).tolist()
    edges = torch.linspace(first, last, 100_001, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    weight = SigmoidWeighting(shift).of_noise(path.at(middle), NoiseTarget())
    expected = 0.5 * (np.logaddexp(0, shift - low) - np.logaddexp(0, shift - high))
    assert (weight.mean() * (last - first)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("weighting", WEIGHTINGS[2:], ids=repr)
@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_losses_do_not_depend_on_the_target(path, weighting):
    losses = [loss_on(path, target, weighting)[0] for target in TARGETS]
    for loss in losses[1:]:
        close(loss / losses[0], torch.ones_like(loss), 1e-6)


# --- the loss ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=repr)
@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_a_perfect_prediction_costs_nothing(target, weighting):
    for path in PATHS:
        x, eps = noise(len(GRID), 2, 3, 3), noise(len(GRID), 2, 3, 3, seed=1)
        predict = predicting(Solved(x, eps), path, target)
        loss = denoising_loss(predict, x, path, target, weighting, GRID, eps)
        assert loss.shape == GRID.shape and (loss == 0).all()


@pytest.mark.parametrize(("law", "precision"), [(StratifiedTimes(), 0.025), (UniformLogSNR(), 0.012)])
def test_diffusion_term_of_gaussian_data_in_nats(law, precision):
    """Unit Gaussian data, optimal prediction: E|eps - eps_hat|^2 = D alpha^2, so the term is D times a closed form."""
    path, n, first = VPLinear(), 20_000, 1e-2
    drawn = law.draw(n, path, rng(), first=first)
    x, eps = noise(n, 4), noise(n, 4, seed=1)

    def optimal(x_t, t):
        return path.at(t).sigma[:, None] * x_t

    loss = denoising_loss(optimal, x, path, NoiseTarget(), ELBOWeighting(), drawn.times, eps)
    each = (drawn.weights * loss).numpy()
    ends = path.log_snr(torch.tensor([first, 1.0], dtype=torch.float64)).numpy()
    expected = 4 * 0.5 * (np.logaddexp(0, ends[0]) - np.logaddexp(0, ends[1]))
    assert abs(each.mean() - expected) < 3 * each.std() / math.sqrt(n)
    assert each.std() / math.sqrt(n) < precision * expected


def test_flow_matching_at_the_very_ends():
    """The plain velocity error is finite where alpha or sigma is 0."""
    x, eps = noise(2, 3), noise(2, 3, seed=1)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    loss = denoising_loss(lambda x_t, _: x_t, x, Linear(), VelocityTarget(), TargetWeighting(), t, eps)
    close(loss, torch.stack([(eps - 2 * x)[0].square().sum(), x[1].square().sum()]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_error_is_computed_in_float32_at_least(dtype):
    """A prediction rounded to bf16 costs exactly its rounding; a bf16 subtraction would make more of it, or 0."""
    x, eps = noise(8, 500).to(dtype), noise(8, 500, seed=1).to(dtype)
    t = GRID[20:28]
    seen = []

    def predict(x_t, times):
        seen.append((x_t.dtype, times.dtype))
        return eps.add(0.25).bfloat16()

    loss = denoising_loss(predict, x, Linear(), NoiseTarget(), SimpleNoise(), t, eps)
    assert seen == [(dtype, torch.float64)]
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    exact = (eps.add(0.25).bfloat16().double() - eps.double()).square().sum(1)
    close(loss.double(), exact, 1e-5)


def test_gradients_reach_the_network():
    weight = torch.ones(3, requires_grad=True)
    x, eps = noise(5, 3, dtype=torch.float32), noise(5, 3, seed=1, dtype=torch.float32)
    loss = denoising_loss(lambda x_t, t: weight * x_t, x, Linear(), NoiseTarget(), MinSNR(), GRID[30:35], eps)
    loss.sum().backward()
    assert (weight.grad.abs() > 0).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: MinSNR(0.0),
        lambda: EDMWeighting(-1.0),
        lambda: LogitNormal(std=0.0),
        lambda: LogNormalSigma(std=-1.0),
        lambda: Importance(bins=1),
        lambda: Importance(uniform_share=0.0),
        lambda: UniformTimes().draw(3, Linear(), first=1.0),
    ],
)
def test_senseless_settings_are_refused(make):
    with pytest.raises(GenzooError):
        make()


# --- laws of times -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_times_are_float64_between_first_and_one(law, path):
    sampler = law.build()
    state = torch.get_rng_state()
    drawn = sampler.draw(1000, path, rng(), first=0.01)
    assert drawn.times.dtype == drawn.weights.dtype == torch.float64
    assert drawn.times.shape == drawn.weights.shape == (1000,)
    assert (drawn.times >= 0.01).all() and (drawn.times <= 1).all()
    assert torch.equal(sampler.draw(1000, path, rng(), first=0.01).times, drawn.times)
    assert torch.equal(torch.get_rng_state(), state)
    assert sampler.draw(4, path, rng()).first == path.first
    assert drawn.unbiased == (not isinstance(law, (LogitNormal, LogNormalSigma)))


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_laws_pass_through_json(law):
    assert from_json(to_json(law), [type(law)]) == law


def test_uniform_times_are_uniform():
    drawn = UniformTimes().draw(5000, Linear(), rng(), first=0.2)
    assert stats.kstest(drawn.times.numpy(), stats.uniform(0.2, 0.8).cdf).pvalue > 1e-3
    close(drawn.weights, torch.full_like(drawn.times, 0.8))


def test_stratified_times_fill_every_stratum_in_random_order():
    n = 64
    drawn = [StratifiedTimes().draw(n, Linear(), rng(seed), first=0.1).times for seed in range(400)]
    strata = torch.stack([((t - 0.1) / 0.9 * n).floor().long() for t in drawn])
    assert torch.equal(strata.sort(1).values, torch.arange(n).expand(400, n))
    of_first_image = torch.stack(drawn)[:, 0].numpy()
    assert stats.kstest(of_first_image, stats.uniform(0.1, 0.9).cdf).pvalue > 1e-3
    inside = ((torch.stack(drawn)[:4] - 0.1) / 0.9 * n).frac().flatten().numpy()
    assert stats.kstest(inside, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("path", [VPLinear(), VPCosine(), DiscreteBetas(), VE()], ids=repr)
def test_uniform_log_snr_is_uniform_and_unbiased(path):
    drawn = UniformLogSNR().draw(4000, path, rng(), first=0.01)
    high, low = path.log_snr(torch.tensor([0.01, 1.0], dtype=torch.float64)).tolist()
    share = (path.log_snr(drawn.times).numpy() - low) / (high - low)
    assert np.abs(np.sort(share) - (np.arange(4000) + 0.5) / 4000).max() < 1 / 4000
    each = (drawn.weights * drawn.times.exp()).numpy()
    assert abs(each.mean() - (math.e - math.exp(0.01))) < 3 * each.std() / math.sqrt(4000)
    close(
        drawn.weights * ELBOWeighting().of_noise(path.at(drawn.times), NoiseTarget()) * 2 / (high - low),
        drawn.times**0,
    )


@pytest.mark.parametrize(("path", "first"), [(Linear(), 0.1), (VPLinear(), 0.0)])
def test_uniform_log_snr_needs_finite_ends(path, first):
    with pytest.raises(GenzooError, match="finite"):
        UniformLogSNR().draw(4, path, rng(), first=first)


def test_logit_normal_times():
    times = LogitNormal(0.5, 0.8).draw(5000, Linear(), rng(), first=0.1).times
    logits = torch.logit((times - 0.1) / 0.9).numpy()
    assert stats.kstest(logits, stats.norm(0.5, 0.8).cdf).pvalue > 1e-3


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_log_normal_sigma_has_edms_law_on_every_path(path):
    times = LogNormalSigma().draw(5000, path, rng(), first=1e-6).times
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
        drawn = sampler.draw(n, Linear(), generator, first=first)
        sampler.update(drawn, steep(drawn.times))
    return sampler


def test_importance_starts_uniform_and_waits_for_every_interval():
    sampler = Importance(bins=4, horizon=5).build()
    times = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
    for _ in range(20):
        sampler.update(DrawnTimes(times, torch.ones_like(times), 0.0, True), 5 * torch.ones(3))
    close(sampler.masses, torch.full((4,), 0.25, dtype=torch.float64))
    assert sampler.seen.tolist() == [20, 20, 20, 0]


def test_importance_masses_follow_the_second_moment():
    """Constant losses in each interval: masses are their sizes, mixed with the uniform share."""
    sampler, sizes = Importance(bins=4, horizon=5, uniform_share=0.1).build(), torch.tensor([1.0, -2, 3, 4])
    times = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64)
    for _ in range(20):
        sampler.update(DrawnTimes(times, torch.ones_like(times), 0.0, True), sizes)
    close(sampler.masses, 0.9 * sizes.abs().double() / 10 + 0.1 / 4, 1e-6)


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
        drawn = sampler.draw(16, Linear(), rng(seed), first=first)
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
    assert weights.max() <= 1 / Importance().uniform_share


def test_importance_remembers_through_a_state_dict():
    sampler, fresh = taught(Importance(bins=8)), Importance(bins=8).build()
    assert not torch.equal(fresh.masses, sampler.masses)
    fresh.load_state_dict(sampler.state_dict())
    assert torch.equal(fresh.draw(9, Linear(), rng()).times, sampler.draw(9, Linear(), rng()).times)
    assert list(sampler.parameters()) == []
