"""ODE likelihoods against closed forms: Gaussian and mixture paths, bin masses, divergences by autograd."""

import itertools
import math

import pytest
import torch
from enumeration import all_images
from scipy import stats
from torch.nn import functional as F

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import DataSpec
from genzoo.objectives.denoising.paths import (
    VE,
    Linear,
    Prediction,
    Trigonometric,
    VPCosine,
    VPLinear,
    append_dims,
)
from genzoo.objectives.dequantisation import (
    TruncatedNormalDequantisation,
    UniformDequantisation,
    bin_centres,
    quantise,
)
from genzoo.objectives.likelihood.divergence import ExactDivergence, Hutchinson, velocity_and_divergence
from genzoo.objectives.likelihood.ode import (
    DormandPrince,
    OdeProtocol,
    RungeKutta4,
    ode_bound,
    ode_log_density,
    over_draws,
)

EXACT = ExactDivergence()
PATHS = [VPLinear(beta_max=60.0), Linear(), Trigonometric()]
"""All have alpha(1) = 0, or 3e-7: noised data end in N(0, sigma(1)^2)."""


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


class Mixture:
    """Isotropic Gaussians of equal weight around `means` [m, ...]: marginals and posterior means in closed form."""

    def __init__(self, means, scale):
        self.means, self.scale = means, scale

    def _parts(self, path, x_t, t):
        alpha, sigma, _, _ = path.at(t)
        variance = (alpha * self.scale) ** 2 + sigma**2
        offset = x_t[:, None] - append_dims(alpha, x_t)[:, None] * self.means.to(x_t)  # [b, m, ...]
        d = x_t[0].numel()
        log_joint = -0.5 * offset.flatten(2).square().sum(2) / variance[:, None] - 0.5 * d * torch.log(
            2 * math.pi * variance[:, None]
        )
        return offset, variance, log_joint - math.log(len(self.means))

    def log_prob(self, path, x_t, t):
        t = torch.full((len(x_t),), t, dtype=torch.float64)
        return self._parts(path, x_t, t)[2].logsumexp(1)

    def denoiser(self, path):
        def denoise(x_t, t):
            assert t.dtype == torch.float64 and t.shape == x_t.shape[:1] and 0 <= t.min() <= t.max() <= 1
            alpha, sigma, _, _ = path.at(t)
            offset, variance, log_joint = self._parts(path, x_t, t)
            share = log_joint.softmax(1).to(x_t).view(*log_joint.shape, *[1] * (x_t.ndim - 1))
            gain = append_dims(alpha * self.scale**2 / variance, x_t)[:, None]
            x = (share * (self.means.to(x_t) + gain * offset)).sum(1)
            return Prediction(x, (x_t - append_dims(alpha, x_t) * x) / append_dims(sigma, x_t))

        return denoise


GAUSSIAN = Mixture(torch.full((1, 1, 2, 2), 0.3), 0.5)
THREE = Mixture(0.6 * normal(3, 1, 2, 2, seed=1), 0.25)


# --- density -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [GAUSSIAN, THREE], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("solver", [DormandPrince(1e-7), RungeKutta4(64)], ids=str)
def test_density_equals_the_closed_form(path, data, solver):
    x = 0.7 * normal(8, 1, 2, 2)
    ours = ode_log_density(data.denoiser(path), path, x, t_min=1e-3, divergence=EXACT, solver=solver)
    error = (ours.nats - data.log_prob(path, x, 1e-3)).abs() / 4
    assert error.max() < 1e-4 and ours.nats.dtype == torch.float64


@pytest.mark.parametrize("path", [VPLinear(), VPCosine(), VE(sigma_max=5.0), Linear()], ids=str)
def test_density_is_that_of_the_flow_from_the_assumed_noise(path):
    """The flow of a Gaussian is affine: its density is known even where data are left at t = 1."""
    x, first = 0.3 + 0.5 * normal(6, 1, 2, 2), 0.01
    mean, scale = [], []
    for t in (first, 1.0):
        alpha, sigma, _, _ = path.at(torch.tensor(t, dtype=torch.float64))
        mean.append(0.3 * alpha)
        scale.append(((0.5 * alpha) ** 2 + sigma**2).sqrt())
    x_1 = mean[1] + scale[1] / scale[0] * (x - mean[0])
    noise = torch.distributions.Normal(0.0, path.at(torch.ones((), dtype=torch.float64)).sigma)
    expected = (noise.log_prob(x_1) + (scale[1] / scale[0]).log()).flatten(1).sum(1)
    denoise = GAUSSIAN.denoiser(path)
    ours = ode_log_density(denoise, path, x, t_min=first, divergence=EXACT, solver=DormandPrince(1e-8))
    torch.testing.assert_close(ours.nats, expected, atol=1e-5, rtol=0)


def test_runge_kutta_is_of_fourth_order_and_counts_its_evaluations():
    x, path = 0.7 * normal(8, 1, 2, 2), Linear()
    errors = []
    for steps in (16, 32, 64):
        ours = ode_log_density(
            THREE.denoiser(path), path, x, t_min=0.01, divergence=EXACT, solver=RungeKutta4(steps)
        )
        assert ours.nfe == 4 * steps
        errors.append((ours.nats - THREE.log_prob(path, x, 0.01)).abs().mean().item())
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert min(orders) > 3.3, errors


def test_float32_networks_are_asked_in_float32():
    x, path, types = 0.7 * normal(4, 1, 2, 2), Linear(), set()

    def denoise(x_t, t):
        types.add(x_t.dtype)
        return THREE.denoiser(path)(x_t, t)

    ours = ode_log_density(denoise, path, x.float(), t_min=0.01, divergence=EXACT)
    assert types == {torch.float32} and ours.nats.dtype == torch.float64
    torch.testing.assert_close(ours.nats, THREE.log_prob(path, x, 0.01), atol=1e-3, rtol=0)


# --- divergence ------------------------------------------------------------------------------------------------


def conv_field(channels=2):
    first, second = (0.4 * normal(channels, channels, 3, 3, seed=s) for s in (1, 2))
    return lambda x: F.conv2d(torch.tanh(F.conv2d(x, first, padding=1)) + 0.3 * x**2, second, padding=1)


def test_exact_divergence_is_the_trace_of_the_jacobian():
    field, x = conv_field(), normal(3, 2, 4, 4)
    v, divergence = velocity_and_divergence(field, x, EXACT.directions(x, None))
    torch.testing.assert_close(v, field(x))
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(field, x[i : i + 1]).reshape(32, 32)
        assert divergence[i].item() == pytest.approx(jacobian.trace().item(), rel=1e-9)


@pytest.mark.parametrize("probes", [1, 4])
def test_hutchinson_is_unbiased_on_a_nonlinear_field(probes):
    field, x, n = conv_field(), normal(1, 2, 4, 4), 10_000 // probes
    _, exact = velocity_and_divergence(field, x, EXACT.directions(x, None))
    many = x.expand(n, -1, -1, -1)
    directions = Hutchinson(probes).directions(many, seeded(3))
    assert directions.shape == (probes, *many.shape)
    torch.testing.assert_close(directions.abs(), torch.full_like(directions, probes**-0.5))
    _, estimates = velocity_and_divergence(field, many, directions)
    stderr = estimates.std() / n**0.5
    assert 0 < stderr < 0.2 and abs(estimates.mean() - exact) < 3 * stderr


def test_hutchinson_is_unbiased_along_trajectories_and_repeats_with_its_generator():
    path, x = Linear(), (0.7 * normal(1, 1, 2, 2)).expand(2000, -1, -1, -1)
    options = {"t_min": 0.01, "solver": RungeKutta4(16)}
    exact = ode_log_density(THREE.denoiser(path), path, x[:1], divergence=EXACT, **options).nats
    one, again, other = (
        ode_log_density(THREE.denoiser(path), path, x, generator=seeded(s), **options).nats for s in (0, 0, 1)
    )
    assert one.std() > 0.05 and abs(one.mean() - exact) < 3 * one.std() / len(x) ** 0.5
    assert torch.equal(one, again) and not torch.equal(one, other)


# --- dequantisation ----------------------------------------------------------------------------------------------


DEQUANTISATIONS = [UniformDequantisation(), *(TruncatedNormalDequantisation(s) for s in (1e-4, 0.05, 3.0))]


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("dequantisation", DEQUANTISATIONS, ids=str)
def test_dequantised_images_lie_in_their_bins(dequantisation, levels):
    images = torch.arange(levels).repeat(2000, 1)
    x, log_q = dequantisation.draw(images, levels, seeded())
    lower = 2 * images.double() / levels - 1
    assert torch.equal(quantise(x, levels), images)
    assert (x >= lower - 1e-15).all() and (x <= lower + 2 / levels + 1e-15).all()
    assert x.dtype == log_q.dtype == torch.float64 and log_q.shape == (2000,)
    assert torch.equal(quantise(bin_centres(images, levels), levels), images)


@pytest.mark.parametrize("ends", [0.0, 1.0])
def test_the_ends_of_a_bin_lead_into_no_other(ends, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, ends, dtype=torch.float64))
    for levels in (2, 3, 17, 100, 255, 256):
        images = torch.arange(levels)[None]
        for dequantisation in DEQUANTISATIONS:
            x = dequantisation.draw(images, levels, None)[0]
            for rounded in (x, x.float()):  # networks see float32
                assert torch.equal(quantise(rounded, levels), images)


@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_truncated_normal_is_scipys(sigma):
    levels, images = 5, torch.full((4000, 1), 3)
    x, log_q = TruncatedNormalDequantisation(sigma).draw(images, levels, seeded())
    tau = 1 / (levels * sigma)
    law = stats.truncnorm(-tau, tau, loc=2 * 3.5 / 5 - 1, scale=sigma)
    torch.testing.assert_close(log_q, torch.from_numpy(law.logpdf(x[:, 0].numpy())))
    assert stats.kstest(x[:, 0].numpy(), law.cdf).pvalue > 1e-3


def test_truncated_normal_follows_the_path():
    alpha, sigma, _, _ = Linear().at(torch.tensor(0.02, dtype=torch.float64))
    assert TruncatedNormalDequantisation.at(Linear(), 0.02).sigma == pytest.approx((sigma / alpha).item())


def log_bin_mass(images, levels, mean, scale):
    edges = [torch.from_numpy(stats.norm.cdf(2 * (images + k) / levels - 1, mean, scale)) for k in (0, 1)]
    return (edges[1] - edges[0]).log().flatten(1).sum(1)


@pytest.mark.parametrize(
    "dequantisation", [UniformDequantisation(), *map(TruncatedNormalDequantisation, (0.2, 3.0))], ids=str
)
def test_importance_weights_approach_the_bin_mass_from_below(dequantisation):
    levels, images = 4, torch.tensor([[0, 3, 1, 2], [1, 1, 2, 0], [2, 3, 3, 1]])
    truth, bounds = log_bin_mass(images, levels, 0.1, 0.3), []
    density = torch.distributions.Normal(torch.tensor(0.1).double(), 0.3)
    many = images.repeat(16 * 4096, 1)
    x, log_q = dequantisation.draw(many, levels, seeded())
    log_weights = (density.log_prob(x).sum(1) - log_q).view(4096, 16, 3)
    for k in (1, 16, 4096):
        bound, _ = over_draws(log_weights[:k].flatten(1), importance_weighted=True)
        bounds.append(bound.view(16, 3).mean(0))
    assert (bounds[0] < bounds[1]).all() and (bounds[1] < truth).all()
    torch.testing.assert_close(bounds[2], truth, atol=0.02, rtol=0)


def test_the_mean_over_draws_and_its_error_by_hand():
    weights = torch.tensor([[-1.0, 2.0], [-3.0, 2.0], [-5.0, 5.0]], dtype=torch.float64)
    nats, stderr = over_draws(weights, importance_weighted=False)
    assert nats.tolist() == [-3.0, 3.0]
    torch.testing.assert_close(stderr, torch.tensor([2.0, 3**0.5], dtype=torch.float64) / 3**0.5)


# --- images ------------------------------------------------------------------------------------------------------


def protocol(**changes):
    return OdeProtocol(**{"t_min": 0.05, "divergence": EXACT, "solver": RungeKutta4(32), **changes})


@pytest.mark.parametrize(
    ("dequantisation", "importance_weighted"),
    [(UniformDequantisation(), False), (TruncatedNormalDequantisation(0.05), True)],
    ids=str,
)
def test_bound_of_images_equals_the_closed_form_draw_by_draw(importance_weighted, dequantisation):
    """Scale, alpha(t_min) and the mean over draws are all charged: nothing is left to noise."""
    path, levels = Linear(), 4
    images = torch.randint(0, levels, (5, 1, 2, 2), generator=seeded(1))
    g, log_weights = seeded(7), []
    for _ in range(3):
        x, log_q = dequantisation.draw(images, levels, g)
        log_weights.append(THREE.log_prob(path, 0.95 * x, 0.05) + 4 * math.log(0.95) - log_q)
    expected, stderr = over_draws(torch.stack(log_weights), importance_weighted)
    setting = protocol(
        draws=3, dequantisation=dequantisation, importance_weighted=importance_weighted, gate_bits=0.001
    )
    ours = ode_bound(
        THREE.denoiser(path), path, images, levels, protocol=setting, dtype=torch.float64, generator=seeded(7)
    )
    torch.testing.assert_close(ours.nats, expected, atol=4e-4, rtol=0)
    torch.testing.assert_close(ours.stderr, stderr, atol=4e-4, rtol=0)
    assert ours.kind is LikelihoodKind.ESTIMATE and ours.details["nfe"] == 128 and ours.details["draws"] == 3
    assert ours.as_log_likelihood(DataSpec((1, 2, 2), levels=4)).nats is ours.nats


def test_probabilities_of_all_images_sum_to_the_mass_within_the_range():
    """Each importance-weighted estimate of P is unbiased, so the sum is what the density has in [-1, 1]."""
    path, spec = Linear(), DataSpec((1, 2, 2), levels=4)
    data, setting = Mixture(0.3 * THREE.means, 0.4), protocol(draws=8, importance_weighted=True)
    ours = ode_bound(data.denoiser(path), path, all_images(spec), 4, protocol=setting, generator=seeded())
    wide = math.hypot(0.4, 0.05 / 0.95)
    per_pixel = [stats.norm.cdf(end, data.means.flatten(1).numpy(), wide) for end in (-1, 1)]
    mass = (per_pixel[1] - per_pixel[0]).prod(1).mean()
    total, noise = ours.nats.exp().sum().item(), (ours.nats.exp() * ours.stderr).square().sum().sqrt().item()
    assert mass < 0.98 and noise < 0.03 and abs(total - mass) < 4 * noise


def test_real_data_are_charged_for_alpha_alone():
    path, x = Linear(), 0.7 * normal(6, 4)
    data = Mixture(THREE.means.flatten(1), 0.25)
    ours = ode_bound(data.denoiser(path), path, x, None, protocol=protocol(), dtype=torch.float64)
    expected = data.log_prob(path, 0.95 * x, 0.05) + 4 * math.log(0.95)
    torch.testing.assert_close(ours.nats, expected, atol=4e-4, rtol=0)
    assert ours.stderr is None


@pytest.mark.parametrize("draws", [1, 32])
def test_constant_weights_give_the_same_bound_for_any_number_of_draws(draws):
    """A flow that stands still under very wide noise: log K must not be left in the sum of weights."""
    path = VE(sigma_max=1e6)
    images = torch.randint(0, 5, (3, 1, 2, 2), generator=seeded())
    setting = protocol(draws=draws, importance_weighted=True, solver=RungeKutta4(1))
    ours = ode_bound(lambda x, t: Prediction(x, 0 * x), path, images, 5, protocol=setting, generator=seeded())
    expected = 4 * (math.log(2 / 5) - math.log(1e6) - 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(ours.nats, torch.full((3,), expected, dtype=torch.float64))
    weights = torch.full((draws, 2), -3.0, dtype=torch.float64)
    for weighted in (False, True):
        torch.testing.assert_close(over_draws(weights, weighted)[0], weights[0])
    assert (ours.stderr is None) == (draws == 1)


@pytest.mark.parametrize(("solver", "refuses"), [(RungeKutta4(2), True), (RungeKutta4(64), False)], ids=str)
def test_gate_refuses_what_has_not_converged(solver, refuses):
    path, images = Linear(), torch.randint(0, 4, (5, 1, 2, 2), generator=seeded())
    setting = protocol(solver=solver, divergence=Hutchinson())
    run = lambda: ode_bound(THREE.denoiser(path), path, images, 4, protocol=setting, generator=seeded())  # noqa: E731
    if not refuses:
        assert run().nats.isfinite().all()
        return
    with pytest.raises(GenzooError, match=r"not converged: RungeKutta4\(steps=2\).*bits/dim") as error:
        run()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda: OdeProtocol(importance_weighted=True), "exact divergence"),
        (lambda: OdeProtocol(draws=0), "at least one draw"),
        (lambda: Hutchinson(0), "at least one probe"),
        (lambda: RungeKutta4(0), "at least one step"),
        (lambda: TruncatedNormalDequantisation(0.0), "positive"),
        (
            lambda: ode_log_density(GAUSSIAN.denoiser(VPLinear()), VPLinear(), normal(1, 4), t_min=0.0),
            "start",
        ),
        (lambda: ode_log_density(broken, Linear(), normal(1, 4), t_min=0.0), "could not be solved"),
        (
            lambda: ode_log_density(broken, Linear(), normal(1, 4), t_min=0.0, solver=RungeKutta4(2)),
            "not finite",
        ),
    ],
)
def test_mistakes_are_one_clear_line(mistake, words):
    with pytest.raises(GenzooError, match=words) as error:
        mistake()
    assert "\n" not in str(error.value)


def broken(x_t, t):
    return Prediction(x_t, x_t / 0)
