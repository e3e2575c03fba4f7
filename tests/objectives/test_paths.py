"""Paths and targets: every pair converts back, derivatives are derivatives, closed forms and diffusers agree."""

import math

import pytest
import torch
from diffusers import DDPMScheduler

from genzoo.core.config import from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.objectives.denoising.betas import CosineBetas, GivenBetas, LinearBetas
from genzoo.objectives.denoising.paths import (
    VE,
    DataTarget,
    DiscreteBetas,
    EDMTarget,
    Linear,
    NoiseTarget,
    SubVP,
    Trigonometric,
    VelocityTarget,
    VPCosine,
    VPLinear,
    VTarget,
    append_dims,
    to_prediction,
    velocity_of,
)

PRESERVING = [
    VPLinear(),
    VPLinear(0.3, 12.0),
    VPCosine(),
    VPCosine(last=0.999),
    Trigonometric(),
    DiscreteBetas(),
    DiscreteBetas(CosineBetas()),
    DiscreteBetas(LinearBetas(7, 0.05, 0.6)),
]
PATHS = [*PRESERVING, SubVP(), Linear(), VE(), VE(0.01, 20.0)]
TARGETS = [NoiseTarget(), DataTarget(), VTarget(), VelocityTarget(), EDMTarget(), EDMTarget(1.3)]
GRID = torch.linspace(0.0031, 0.9969, 200, dtype=torch.float64)  # no state of DDPM within 2e-6 of it


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=rng(seed), dtype=dtype)


def assert_close(actual, expected, tolerance=1e-9):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def amplification(at, target):
    """How much larger than an input's rounding error the error of `to_prediction` can be."""
    a, b = target.coefficients(at)
    det = (at.alpha * b - at.sigma * a).abs()
    largest = torch.stack([a.abs(), b.abs(), at.alpha, at.sigma]).max(0).values
    return largest**2 / det


# --- conversions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS, ids=repr)
@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_every_prediction_converts_back_in_float32(path, target):
    t = GRID[amplification(path.at(GRID), target) < 10]
    assert len(t) >= 50  # a quarter of the grid: the rest is near a pole of this pair
    x, eps = noise(len(t), 3, 4, dtype=torch.float32), noise(len(t), 3, 4, seed=1, dtype=torch.float32)
    at = path.at(t)
    prediction = to_prediction(path.mix(x, eps, t), target.of(x, eps, at), at, target)
    assert prediction.x0.dtype == prediction.eps.dtype == torch.float32
    assert_close(prediction.x0, x, 1e-5)
    assert_close(prediction.eps, eps, 1e-5)


@pytest.mark.parametrize("target", TARGETS, ids=repr)
@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_errors_of_predictions_convert_by_the_determinant(path, target):
    at, x_t = path.at(GRID), noise(len(GRID), 5)
    y, other = noise(len(GRID), 5, seed=1), noise(len(GRID), 5, seed=2)
    a, b = target.coefficients(at)
    det = at.alpha * b - at.sigma * a
    one, two = to_prediction(x_t, y, at, target), to_prediction(x_t, other, at, target)
    error = (y - other).square().sum(1)
    assert_close(error, (det / at.alpha) ** 2 * (one.eps - two.eps).square().sum(1), 1e-6)
    assert_close(error, (det / at.sigma) ** 2 * (one.x0 - two.x0).square().sum(1), 1e-6)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_solved_velocity_is_the_derivative_of_the_mixed_path(path):
    x, eps = noise(len(GRID), 5), noise(len(GRID), 5, seed=1)
    at = path.at(GRID)
    y = VelocityTarget().of(x, eps, at)
    assert_close(velocity_of(to_prediction(path.mix(x, eps, GRID), y, at, VelocityTarget()), at), y, 1e-6)
    h = 1e-6
    moved = (path.mix(x, eps, GRID + h) - path.mix(x, eps, GRID - h)) / (2 * h)
    assert_close(y, moved, 1e-4)


def test_edm_target_is_the_one_of_karras():
    """D = c_skip x_t + c_out F with Karras et al. 2022, table 1."""
    sigma_data, t = 0.7, GRID
    x_t, f = noise(len(t), 5), noise(len(t), 5, seed=1)
    at = VE().at(t)
    sigma = at.sigma[:, None]
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / (sigma**2 + sigma_data**2).sqrt()
    assert_close(to_prediction(x_t, f, at, EDMTarget(sigma_data)).x0, c_skip * x_t + c_out * f)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_edm_target_has_unit_variance(path):
    a, b = EDMTarget(0.7).coefficients(path.at(GRID))
    assert_close((a * 0.7) ** 2 + b**2, torch.ones_like(GRID))


def test_v_is_the_velocity_of_the_trigonometric_path():
    at = Trigonometric().at(GRID)
    for v, velocity in zip(VTarget().coefficients(at), VelocityTarget().coefficients(at), strict=True):
        assert_close(v * math.pi / 2, velocity)


def test_ends_where_conversions_need_no_division():
    """Data from noise's prediction at t = 0, velocity's both at both ends of the linear path."""
    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    x, eps = noise(3, 4), noise(3, 4, seed=1)
    for t in (zero, one):
        at = Linear().at(t)
        prediction = to_prediction(
            Linear().mix(x, eps, t), VelocityTarget().of(x, eps, at), at, VelocityTarget()
        )
        assert_close(prediction.x0, x)
        assert_close(prediction.eps, eps)
    for path in PRESERVING:
        at = path.at(zero)
        assert_close(to_prediction(x, eps, at, NoiseTarget()).x0, x)
        assert_close(to_prediction(x, VTarget().of(x, eps, at), at, VTarget()).eps, eps)
        assert_close(to_prediction(x, EDMTarget().of(x, eps, at), at, EDMTarget()).eps, eps)


def test_spread_shapes_and_types():
    like = torch.zeros(2, 3, 4, 5)
    assert append_dims(torch.ones(2, dtype=torch.float64), like).shape == (2, 1, 1, 1)
    assert append_dims(torch.tensor(1.0, dtype=torch.float64), like).shape == ()
    assert append_dims(torch.ones(2, dtype=torch.float64), like.bfloat16()).dtype == torch.bfloat16


# --- paths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_derivatives_equal_autograd(path):
    t = GRID.clone().requires_grad_()
    at = path.at(t)
    for value, stated in ((at.alpha, at.d_alpha), (at.sigma, at.d_sigma)):
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), t, retain_graph=True)
        else:
            gradient = torch.zeros_like(t)
        assert_close(stated.detach(), gradient, 1e-8)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_time_of_inverts_log_snr(path):
    t = torch.cat([GRID, torch.logspace(-8, -2.6, 30, dtype=torch.float64)])
    torch.testing.assert_close(path.time_of(path.log_snr(t)), t, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_log_snr_falls_without_end(path):
    t = torch.linspace(path.t_min, 1, 5001, dtype=torch.float64)
    assert (path.log_snr(t).diff() < 0).all()
    assert path.at(torch.tensor(0.3, dtype=torch.float64)).alpha.shape == ()


@pytest.mark.parametrize("path", PRESERVING, ids=repr)
def test_variance_is_preserved(path):
    t = torch.linspace(0, 1, 501, dtype=torch.float64)
    at = path.at(t)
    assert_close(at.alpha**2 + at.sigma**2, torch.ones_like(t), 1e-14)
    assert at.alpha[0] == 1 and at.sigma[0] == 0


@pytest.mark.parametrize("path", [VPLinear(), VPCosine(), DiscreteBetas(), DiscreteBetas(CosineBetas())])
def test_sigma_is_exact_near_the_data(path):
    """sigma^2 ~ rate t with the path's own noise rate; 1 - alpha^2 from a rounded alpha would give 0."""
    t = torch.tensor([1e-12, 1e-10], dtype=torch.float64)
    rate = -2 * path.at(torch.zeros(1, dtype=torch.float64)).d_alpha
    torch.testing.assert_close(path.at(t).sigma ** 2 / t, rate.expand(2), rtol=1e-8, atol=0)


def test_sub_vp_stays_below_vp():
    at, preserving = SubVP().at(GRID), VPLinear().at(GRID)
    assert_close(at.alpha, preserving.alpha)
    assert_close(at.sigma, preserving.sigma**2)
    assert (at.alpha**2 + at.sigma**2 < 1).all()


def test_ends_of_the_other_paths():
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert_close(VE(0.01, 20.0).at(ends).sigma, torch.tensor([0.01, 20.0], dtype=torch.float64))
    assert_close(Linear().at(ends).alpha, 1 - ends)
    assert VPCosine().log_snr(ends)[1].item() == pytest.approx(-9.55, abs=0.01)
    assert VPLinear().log_snr(ends)[1].item() == pytest.approx(-10.05, abs=0.01)


def test_linear_betas_become_vp_linear():
    """DDPM's betas scaled by 1 / T: the difference falls like 1 / T."""
    t = torch.linspace(0.1, 1, 10, dtype=torch.float64)

    def difference(steps):
        path = DiscreteBetas(LinearBetas(steps, 0.1 / steps, 20 / steps))
        return (path.log_snr(t) - VPLinear().log_snr(t)).abs().max().item()

    assert difference(1000) / difference(2000) == pytest.approx(2, abs=0.1)
    assert difference(100_000) < 2e-3


# --- DDPM's own steps --------------------------------------------------------------------------------------------

SCHEDULES = [
    (LinearBetas(), DDPMScheduler(beta_schedule="linear")),
    (LinearBetas(50, 0.001, 0.3), DDPMScheduler(50, beta_start=0.001, beta_end=0.3)),
    (CosineBetas(), DDPMScheduler(beta_schedule="squaredcos_cap_v2")),
    (CosineBetas(20), DDPMScheduler(20, beta_schedule="squaredcos_cap_v2")),
    (GivenBetas((0.1, 0.3, 0.2)), DDPMScheduler(3, trained_betas=[0.1, 0.3, 0.2])),
]


@pytest.mark.parametrize(("betas", "scheduler"), SCHEDULES, ids=lambda v: repr(v)[:40])
def test_discrete_betas_are_those_of_diffusers(betas, scheduler):
    path = DiscreteBetas(betas)
    t = (torch.arange(path.steps, dtype=torch.float64) + 1) / path.steps
    # diffusers multiplies in float32: exact against the same product in float64, close to its own
    assert_close(path.at(t).alpha ** 2, (1 - betas.values()).cumprod(0), 1e-12)
    torch.testing.assert_close(betas.values().float(), scheduler.betas, rtol=1e-5, atol=1e-8)
    kept = scheduler.alphas_cumprod.double()
    torch.testing.assert_close(path.at(t).alpha ** 2, kept, rtol=2e-4, atol=1e-7)
    x, eps = noise(path.steps, 3), noise(path.steps, 3, seed=1)
    assert_close(path.mix(x, eps, t), scheduler.add_noise(x, eps, torch.arange(path.steps)).double(), 1e-4)


@pytest.mark.parametrize("betas", [LinearBetas(7, 0.05, 0.6), CosineBetas(12)], ids=repr)
def test_discrete_betas_are_linear_in_log_snr_and_continuous(betas):
    path = DiscreteBetas(betas)
    nodes = (torch.arange(path.steps, dtype=torch.float64) + 1) / path.steps
    middle = (nodes[1:] + nodes[:-1]) / 2
    assert_close(path.log_snr(middle), (path.log_snr(nodes)[1:] + path.log_snr(nodes)[:-1]) / 2)
    before, after = path.at(nodes[:-1] - 1e-9), path.at(nodes[:-1] + 1e-9)
    assert_close(before.alpha, after.alpha, 1e-7)
    assert_close(before.sigma, after.sigma, 1e-7)
    assert path.t_min == 1 / path.steps


def test_discrete_betas_end_at_the_data():
    path = DiscreteBetas()
    at = path.at(torch.zeros(2, dtype=torch.float64))
    assert at.alpha.tolist() == [1, 1] and at.sigma.tolist() == [0, 0]
    assert path.log_snr(torch.zeros(1, dtype=torch.float64)).item() == math.inf
    assert path.time_of(torch.tensor(math.inf, dtype=torch.float64)).item() == 0


def test_discrete_betas_pass_through_json():
    path = DiscreteBetas(LinearBetas(30, 0.01, 0.2))
    path.at(GRID)  # what it remembers is no part of its configuration
    assert from_json(to_json(path), [DiscreteBetas, LinearBetas]) == path


@pytest.mark.parametrize("betas", [(0.1,), (0.1, 1.0), (0.0, 0.1), (0.1, math.nan)])
def test_betas_outside_the_unit_interval_are_refused(betas):
    with pytest.raises(
        GenzooError, match=r"above 0 and below 1|must be a list whose every value is a finite number"
    ):
        DiscreteBetas(GivenBetas(betas))
