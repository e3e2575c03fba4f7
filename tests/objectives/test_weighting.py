"""Weightings against their papers' own formulas, the loss against closed forms, and timestep distributions."""

import math

import numpy as np
import pytest
import torch

from genzoo.core.errors import GenzooError
from genzoo.objectives.denoising.paths import (
    VE,
    DataTarget,
    DiscreteBetas,
    EDMTarget,
    Linear,
    NoiseTarget,
    Prediction,
    Trigonometric,
    VelocityTarget,
    VPCosine,
    VPLinear,
    VTarget,
)
from genzoo.objectives.denoising.times import (
    Importance,
    LogitNormal,
    LogNormalSigma,
    StratifiedTimes,
    UniformLogSNR,
    UniformTimes,
)
from genzoo.objectives.denoising.weighting import (
    EDMWeighting,
    ELBOWeighting,
    MinSNR,
    SigmoidWeighting,
    SimpleNoise,
    TargetWeighting,
    denoising_loss,
)

PATHS = [VPLinear(), VPCosine(), Trigonometric(), DiscreteBetas(), Linear(), VE()]
TARGETS = [NoiseTarget(), DataTarget(), VTarget(), VelocityTarget(), EDMTarget(0.7)]
WEIGHTINGS = [SimpleNoise(), TargetWeighting(), MinSNR(), EDMWeighting(), ELBOWeighting(), SigmoidWeighting()]
GRID = torch.linspace(0.0031, 0.9969, 60, dtype=torch.float64)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=rng(seed), dtype=dtype)


def assert_close(actual, expected, tolerance=1e-9):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def predicting(prediction, path, target):
    """A network that answers with these data and noise, in the terms of its target."""
    return lambda x_t, t: target.of(prediction.x0, prediction.eps, path.at(t))


def wrong_guess(x, eps, path):
    """Data and noise that do not fit, but make up the same x_t, as any prediction's do."""
    at = path.at(GRID)
    eps_hat = eps + noise(*eps.shape, seed=5)
    return Prediction(x + (at.sigma / at.alpha)[:, None] * (eps - eps_hat), eps_hat)


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
    assert_close(loss, on_noise, 1e-7)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_target_weighting_is_the_plain_squared_error(path, target):
    x, eps = noise(len(GRID), 3), noise(len(GRID), 3, seed=1)
    loss = denoising_loss(lambda x_t, t: x_t.sin(), x, path, target, TargetWeighting(), GRID, eps)
    y = target.of(x, eps, path.at(GRID))
    assert_close(loss, (y - path.mix(x, eps, GRID).sin()).square().sum(1))
    at = path.at(GRID)  # and the same weight in terms of the noise
    a, b = target.coefficients(at)
    det = at.alpha * b - at.sigma * a
    assert_close(TargetWeighting().of_noise(at, target), (det / at.alpha) ** 2)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_min_snr_weighs_data_noise_and_v_as_hang_et_al(path):
    gamma = 5.0
    for target in (DataTarget(), NoiseTarget(), VTarget()):
        loss, _, on_data, at = loss_on(path, target, MinSNR(gamma))
        snr = (at.alpha / at.sigma) ** 2
        assert_close(loss, snr.clamp(max=gamma) * on_data, 1e-7)
    preserving = Trigonometric()  # v's weight of the paper holds for preserved variance
    at = preserving.at(GRID)
    snr = (at.alpha / at.sigma) ** 2
    assert_close(MinSNR(gamma).of_target(at, NoiseTarget()), snr.clamp(max=gamma) / snr)
    assert_close(MinSNR(gamma).of_target(at, VTarget()), snr.clamp(max=gamma) / (snr + 1))


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_edm_weighting_is_the_one_of_karras(target):
    loss, _, on_data, at = loss_on(VE(), target, EDMWeighting(0.7))
    assert_close(loss, (at.sigma**2 + 0.49) / (at.sigma * 0.7) ** 2 * on_data, 1e-7)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_edm_weighting_is_the_plain_error_of_edms_network(path):
    at = path.at(GRID)
    assert_close(EDMWeighting(0.7).of_target(at, EDMTarget(0.7)), torch.ones_like(GRID))


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
        assert_close(loss / losses[0], torch.ones_like(loss), 1e-6)


# --- the loss ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=repr)
@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_a_perfect_prediction_costs_nothing(target, weighting):
    for path in PATHS:
        x, eps = noise(len(GRID), 2, 3, 3), noise(len(GRID), 2, 3, 3, seed=1)
        predict = predicting(Prediction(x, eps), path, target)
        loss = denoising_loss(predict, x, path, target, weighting, GRID, eps)
        assert loss.shape == GRID.shape and (loss == 0).all()


@pytest.mark.parametrize(("law", "precision"), [(StratifiedTimes(), 0.025), (UniformLogSNR(), 0.012)])
def test_diffusion_term_of_gaussian_data_in_nats(law, precision):
    """Unit Gaussian data, optimal prediction: E|eps - eps_hat|^2 = D alpha^2, so the term is D times a closed form."""
    path, n, first = VPLinear(), 20_000, 1e-2
    drawn = law.draw(n, path, rng(), t_min=first)
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
    assert_close(loss, torch.stack([(eps - 2 * x)[0].square().sum(), x[1].square().sum()]))


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
    assert_close(loss.double(), exact, 1e-5)


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
        lambda: Importance(uniform_fraction=0.0),
        lambda: UniformTimes().draw(3, Linear(), t_min=1.0),
    ],
)
def test_senseless_settings_are_refused(make):
    with pytest.raises(GenzooError):
        make()
