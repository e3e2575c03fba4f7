"""Samplers against closed forms of Gaussian data, measured orders of convergence, and diffusers' schedulers."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from genzoo.contract import GenzooError
from genzoo.paths import (
    VE,
    Coefficients,
    GaussianPath,
    Linear,
    Solved,
    SubVP,
    Trigonometric,
    VelocityTarget,
    VPCosine,
    VPLinear,
    solve,
    spread,
)
from genzoo.samplers import (
    DDIM,
    AdamsMoulton,
    Ancestral,
    Dopri5,
    DPMSolverPP2M,
    Euler,
    Heun,
    KarrasGrid,
    LogisticGrid,
    LogSNRGrid,
    UniformGrid,
    guided,
    impute,
    invert,
)

PATHS = [VPLinear(), VPCosine(), Trigonometric(), SubVP(), Linear(), VE()]
FLOWS = [DDIM(), Euler(), Heun(), DPMSolverPP2M(), AdamsMoulton(), Dopri5()]
NOISY = [Ancestral(), Ancestral(upper=1.0), DDIM(eta=0.5), DDIM(eta=1.0)]
GRIDS = [UniformGrid(), KarrasGrid(), LogSNRGrid()]
F64 = torch.float64


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def at(path, t):
    return path.at(torch.as_tensor(t, dtype=F64))


def from_data(x_t, x, c):
    """Data and the noise that goes with them."""
    return Solved(x, (x_t - spread(c.alpha, x) * x) / spread(c.sigma, x))


@dataclass
class Gaussian:
    """Independent N(mean, scale^2): the optimal denoiser, and the flow in closed form."""

    mean: Tensor
    scale: Tensor

    def denoiser(self, path):
        def denoise(x_t, t):
            alpha, sigma = (spread(c, x_t) for c in path.at(t)[:2])
            ratio = alpha * self.scale**2 / (alpha**2 * self.scale**2 + sigma**2)
            x = self.mean + ratio * (x_t - alpha * self.mean)
            eps = sigma / (alpha**2 * self.scale**2 + sigma**2) * (x_t - alpha * self.mean)
            return Solved(x, eps)

        return denoise

    def flow(self, path, x, t, s):
        """The quantile of x_t stays: (x_t - alpha mean) / std(x_t) is constant."""
        (a, b), (c, d) = at(path, t)[:2], at(path, s)[:2]
        std_t, std_s = (((p * self.scale) ** 2 + q**2).sqrt() for p, q in ((a, b), (c, d)))
        return c * self.mean + std_s / std_t * (x - a * self.mean)


GAUSSIAN = Gaussian(torch.tensor([0.5, -1.0, 0.2], dtype=F64), torch.tensor([0.3, 0.7, 1.5], dtype=F64))


def two_modes(path, scale=0.3):
    """Optimal denoiser of an equal mixture of N(-1, scale^2) and N(1, scale^2) in each dimension."""

    def denoise(x_t, t):
        c = path.at(t)
        alpha, sigma = spread(c.alpha, x_t), spread(c.sigma, x_t)
        variance = (alpha * scale) ** 2 + sigma**2
        side = torch.tanh(alpha * x_t / variance)
        eps = sigma / variance * (x_t - alpha * side)
        return Solved(side + alpha * scale**2 / variance * (x_t - alpha * side), eps)

    return denoise


@dataclass
class Recorder:
    """A denoiser that remembers what it was asked."""

    denoise: object

    def __post_init__(self):
        self.x, self.t = [], []

    def __call__(self, x_t, t):
        self.x.append(x_t)
        self.t.append(t)
        return self.denoise(x_t, t)


# --- diffusers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DiscreteBetas(GaussianPath):
    """t = (k + 1) / T is step k of a discrete schedule; t = 0 is clean."""

    alphas_cumprod: Tensor

    def at(self, t):
        squares = torch.cat([torch.ones(1, dtype=F64), self.alphas_cumprod.double()])
        square = squares[(t * len(self.alphas_cumprod)).round().long()]
        nothing = torch.zeros_like(square)
        return Coefficients(square.sqrt(), (1 - square).sqrt(), nothing, nothing)

    def time_of(self, log_snr):
        raise AssertionError("no solver of this test asks")

    def times(self, timesteps, last=0.0):
        return torch.cat([(timesteps.double() + 1) / len(self.alphas_cumprod), torch.tensor([last]).double()])


def network(x, t):
    """Something nonlinear; `t` is in 0 .. 1."""
    return torch.tanh(1.3 * x + 0.2 * x.roll(1, -1) ** 2 - t) + 0.1 * torch.cos(5 * t)


def noise_denoiser(path):
    def denoise(x_t, t):
        c, eps = path.at(t), network(x_t, t[0].float())
        return Solved((x_t - spread(c.sigma, x_t) * eps) / spread(c.alpha, x_t), eps)

    return denoise


def theirs_and_ours(scheduler, sampler, steps, last=0.0, **options):
    """What both give to the network at each step, and the last sample."""
    scheduler.set_timesteps(steps)
    path = DiscreteBetas(scheduler.alphas_cumprod)
    times = path.times(scheduler.timesteps, last)
    start = normal(2, 3, 4, 4, dtype=torch.float32)
    theirs, generator = [start], seeded(1)
    for k, t in zip(scheduler.timesteps, times, strict=False):
        options |= {"generator": generator}
        theirs.append(
            scheduler.step(network(theirs[-1], t.float()), int(k), theirs[-1], **options).prev_sample
        )
    recorder = Recorder(noise_denoiser(path))
    end = sampler.run(recorder, path, times, start, seeded(1))
    return theirs, [*recorder.x, end]


def assert_same(theirs, ours):
    assert len(theirs) == len(ours) > 5
    for a, b in zip(theirs, ours, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("variance", "upper"), [("fixed_small", 0.0), ("fixed_large", 1.0)])
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_ancestral_steps_are_ddpm(variance, upper, schedule):
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(beta_schedule=schedule, variance_type=variance, clip_sample=False)
    assert_same(*theirs_and_ours(scheduler, Ancestral(upper=upper), 20))


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_steps(eta):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="leading")
    assert_same(*theirs_and_ours(scheduler, DDIM(eta), 20, eta=eta))


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_dpm_solver_steps(final):
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++",
        solver_order=2,
        final_sigmas_type=final,
        lower_order_final=final == "zero",
    )
    last = 0.0 if final == "zero" else 1 / 1000
    assert_same(*theirs_and_ours(scheduler, DPMSolverPP2M(), 20, last=last))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_euler_steps(shift):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(12)
    theirs = [normal(2, 3, 4, 4, dtype=torch.float32)]
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        theirs.append(scheduler.step(network(theirs[-1], sigma), t, theirs[-1]).prev_sample)

    def denoise(x_t, t):
        return solve(x_t, network(x_t, t[0].float()), Linear().at(t), VelocityTarget())

    recorder = Recorder(denoise)
    end = Euler().run(recorder, Linear(), scheduler.sigmas.double(), theirs[0])
    assert_same(theirs, [*recorder.x, end])


# --- orders --------------------------------------------------------------------------------------------------


def measured_order(sampler, path, grid, steps=(40, 80, 160)):
    """The slope of log error over log step length, with the flow in closed form as the truth."""
    x = normal(16, 3)
    errors = []
    for n in steps:
        times = grid(path, n)
        truth = GAUSSIAN.flow(path, x, times[0], times[-1])
        end = sampler.run(GAUSSIAN.denoiser(path), path, times, x)
        errors.append((end - truth).square().mean().sqrt().log2().item())
    return (errors[0] - errors[-1]) / math.log2(steps[-1] / steps[0])


SMOOTH = {  # where no coefficient of the method is singular
    VPLinear(): UniformGrid(last=0.05),
    VPCosine(): UniformGrid(start=0.95, last=0.05),
    Linear(): UniformGrid(start=0.95, last=0.05),
    Trigonometric(): UniformGrid(start=0.95, last=0.05),
}


@pytest.mark.parametrize("path", SMOOTH, ids=repr)
@pytest.mark.parametrize(
    ("sampler", "order", "slack"),
    [(Euler(), 1, 0.15), (DDIM(), 1, 0.15), (Heun(), 2, 0.25), (DPMSolverPP2M(), 2, 0.25)],
    ids=repr,
)
def test_order_of_convergence(sampler, order, slack, path):
    assert abs(measured_order(sampler, path, SMOOTH[path]) - order) < slack


@pytest.mark.parametrize("path", SMOOTH, ids=repr)
def test_order_of_adams_moulton(path):
    assert 2.75 < measured_order(AdamsMoulton(), path, SMOOTH[path], (80, 160, 320)) < 3.25


@pytest.mark.parametrize("path", [Linear(), Trigonometric()], ids=repr)
@pytest.mark.parametrize(("sampler", "order"), [(Euler(), 1), (DDIM(), 1), (Heun(), 2), (AdamsMoulton(), 3)])
def test_order_from_pure_noise_to_clean_data(sampler, order, path):
    """alpha = 0 at the start and sigma = 0 at the end cost no order."""
    assert measured_order(sampler, path, UniformGrid()) > order - 0.25


def test_adams_moulton_is_of_order_three_on_uneven_steps():
    """Every other step is twice as long: coefficients of equal steps would lose the order."""

    def grid(path, n):
        lengths = torch.tensor([1.0, 2.0], dtype=F64).repeat(n // 2)
        share = torch.cat([lengths.new_zeros(1), lengths.cumsum(0) / lengths.sum()])
        return 0.95 - 0.9 * share

    assert 2.5 < measured_order(AdamsMoulton(), Linear(), grid, (80, 320)) < 3.5


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_dopri5_keeps_its_tolerance(path):
    x, last = normal(8, 3), 0.01
    end = Dopri5(1e-7, 1e-7).run(GAUSSIAN.denoiser(path), path, UniformGrid(last=last)(path, 1), x)
    torch.testing.assert_close(end, GAUSSIAN.flow(path, x, 1.0, last), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("path", [VPCosine(), Linear()], ids=repr)
def test_ten_multistep_calls_beat_a_hundred_of_ddim(path):
    x, times = normal(64, 3), LogSNRGrid()(path, 10)
    fine = LogSNRGrid()(path, 100)
    truth = GAUSSIAN.flow(path, x, 1.0, 0.0)
    few = AdamsMoulton().run(GAUSSIAN.denoiser(path), path, times, x) - truth
    many = DDIM().run(GAUSSIAN.denoiser(path), path, fine, x) - truth
    assert few.square().mean() < many.square().mean()


# --- noise ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("sampler", [Ancestral(), DDIM(eta=1.0), DDIM(eta=0.5)], ids=repr)
def test_a_step_leads_from_one_marginal_to_the_next(sampler, path):
    """Told the true data, x_t ~ q(x_t | x) becomes x_s ~ q(x_s | x), with the posterior's covariance."""
    n, t, s = 200_000, 0.7, 0.4
    x, at_t, at_s = torch.full((n, 1), 0.8, dtype=F64), at(path, t), at(path, s)
    x_t = at_t.alpha * x + at_t.sigma * normal(n, 1)
    end = sampler.run(
        lambda x_t, t: from_data(x_t, x, path.at(t)), path, torch.tensor([t, s], dtype=F64), x_t, seeded(1)
    )
    u, v = (x_t - at_t.alpha * x) / at_t.sigma, (end - at_s.alpha * x) / at_s.sigma
    assert abs(v.mean()) < 4 / n**0.5 and abs(v.var() - 1) < 4 * (2 / n) ** 0.5
    kept = at_t.alpha * at_s.sigma / (at_s.alpha * at_t.sigma)
    eta = getattr(sampler, "eta", 1.0)
    correlation = (1 - eta**2 * (1 - kept**2)).sqrt()
    assert abs((u * v).mean() - correlation) < 4 * (2 / n) ** 0.5
    if eta == 1.0:
        torch.testing.assert_close(correlation, kept)


@pytest.mark.parametrize("path", [VPCosine(), SubVP(), Linear()], ids=repr)
@pytest.mark.parametrize("sampler", [Ancestral(), DDIM(eta=0.3)], ids=repr)
def test_mean_and_variance_of_gaussian_data(sampler, path):
    n = 4_000
    end = sampler.run(
        GAUSSIAN.denoiser(path), path, LogSNRGrid()(path, 200), normal(n, 3), generator=seeded(2)
    )
    z = (end - GAUSSIAN.mean) / GAUSSIAN.scale
    assert (z.mean(0).abs() < 4 / n**0.5 + 0.01).all()
    assert ((z.var(0) - 1).abs() < 4 * (2 / n) ** 0.5 + 0.03).all()


@pytest.mark.parametrize("sampler", NOISY, ids=repr)
def test_randomness_is_the_generators(sampler):
    path, times, x = Linear(), UniformGrid()(Linear(), 5), normal(4, 3)
    before = torch.random.get_rng_state()
    ends = [sampler.run(two_modes(path), path, times, x, seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])
    assert torch.equal(before, torch.random.get_rng_state())


# --- ends, types, mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("sampler", FLOWS + NOISY, ids=repr)
def test_a_point_mass_is_found(sampler, path, grid):
    """From t = 1 down to t = 0 every step is finite, and the one to sigma = 0 lands on the data."""
    point = torch.tensor([0.3, -0.9], dtype=torch.float32)
    recorder = Recorder(lambda x_t, t: from_data(x_t, point.expand_as(x_t), path.at(t)))
    x = normal(5, 2, dtype=torch.float32) * at(path, 1.0).sigma
    end = sampler.run(recorder, path, grid(path, 7), x, seeded(0))
    rest = at(path, 0.0).sigma.item()
    assert end.dtype == torch.float32 and end.isfinite().all()
    if rest == 0 or sampler not in (Euler(), Heun(), Ancestral(upper=1.0)):  # of a few wide steps these miss
        assert ((end - point).abs() < 5 * rest + 2e-5).all()
    for t in recorder.t:
        assert t.dtype == F64 and t.shape == (5,) and (t == t[0]).all()
        assert rest > 0 or path.at(t).sigma.min() > 1e-6
    if sampler.calls(7) is not None:
        assert len(recorder.t) == sampler.calls(7) - (isinstance(sampler, Heun) and rest == 0)


def test_times_must_run_one_way():
    x, denoise = normal(2, 3), two_modes(Linear())
    for times in ([0.5], [1.0, 0.5, 0.5], [1.0, 0.2, 0.3], [[1.0, 0.0]]):
        with pytest.raises(GenzooError, match="strictly descending"):
            DDIM().run(denoise, Linear(), torch.tensor(times, dtype=F64), x)
    for sampler in NOISY:
        with pytest.raises(GenzooError, match="adds noise"):
            invert(sampler, denoise, Linear(), UniformGrid()(Linear(), 4), x)
    with pytest.raises(GenzooError, match="eta"):
        DDIM(eta=1.5)
    with pytest.raises(GenzooError, match="upper"):
        Ancestral(upper=-0.1)


# --- grids ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "grid", "n"), list(itertools.product(PATHS, GRIDS, (1, 2, 9))), ids=repr)
def test_grids_descend_from_start_to_last(path, grid, n):
    for ends in ({}, {"start": 0.8}, {"last": 0.01}, {"start": 0.5, "last": 0.1}):
        times = type(grid)(**ends)(path, n)
        assert times.shape == (n + 1,) and times.dtype == F64 and (times.diff() < 0).all()
        assert times[0] == ends.get("start", 1.0) and times[-1] == ends.get("last", 0.0)


def test_karras_times_are_equation_5():
    """Karras et al. 2022 with n noise levels and a last step to 0, on a path with alpha < 1 as on theirs."""
    low, high, rho, n = 0.002, 80.0, 7.0, 18
    wanted = [
        (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)
    ]
    at_times = VPCosine().at(KarrasGrid(sigma_min=low)(VPCosine(), n))
    noise = (at_times.sigma / at_times.alpha)[1:-1]  # the first is t = 1 itself
    torch.testing.assert_close(noise, torch.tensor(wanted[1:], dtype=F64))
    ends_in_noise = KarrasGrid()(VE(), n - 1)  # sigma(0) = 0.002 is as far as it goes
    torch.testing.assert_close(VE().at(ends_in_noise).sigma, torch.tensor(wanted, dtype=F64))


def test_log_snr_times_are_even():
    for path, clean in ((VPLinear(), True), (VE(), False)):
        log_snr = path.log_snr(LogSNRGrid(sigma_max=200.0)(path, 12))
        steps = (log_snr[1:-1] if clean else log_snr).diff()
        torch.testing.assert_close(steps, steps[:1].expand_as(steps))
    assert math.isclose(log_snr[-1], -2 * math.log(0.002), rel_tol=1e-9)


def test_few_log_snr_steps_end_at_noise_that_is_removed_at_once():
    def smallest(n, start=1.0):
        alpha, sigma, _, _ = Linear().at(LogSNRGrid(start=start)(Linear(), n)[-2])
        return float(sigma / alpha)

    assert math.isclose(smallest(10), 0.12, rel_tol=1e-9) and math.isclose(smallest(600), 0.004, rel_tol=1e-9)
    assert smallest(10, start=0.01) < 0.01 / 0.99


def test_logistic_times_are_even_quantiles():
    for path in (Linear(), VPCosine(), VE()):
        log_noise = -0.5 * path.log_snr(LogisticGrid()(path, 12)[1:-1])
        shares = torch.sigmoid((log_noise - 0.5) / 1.1)
        torch.testing.assert_close(shares.diff(), shares.diff()[:1].expand(10), rtol=1e-6, atol=0)
    for n, start in ((1, 1.0), (2, 1.0), (200, 1.0), (10, 0.001)):
        times = LogisticGrid(start=start)(Linear(), n)
        assert len(times) == n + 1 and bool((times.diff() < 0).all()) and times[-1] == 0 and times[0] == start


def test_grids_refuse_what_cannot_be():
    with pytest.raises(GenzooError, match="n >= 1"):
        UniformGrid()(Linear(), 0)
    with pytest.raises(GenzooError, match="last < start"):
        KarrasGrid(start=0.3, last=0.4)(Linear(), 3)
    with pytest.raises(GenzooError, match="sigma_min < sigma_max"):
        LogSNRGrid(sigma_min=100.0)(Linear(), 3)


# --- guidance ------------------------------------------------------------------------------------------------


def score_denoiser(path, centres, scale=0.5):
    """eps = -sigma grad log p_t, by automatic differentiation, of an equal mixture of N(centre, scale^2)."""

    def denoise(x_t, t):
        c = path.at(t)
        alpha, sigma = spread(c.alpha, x_t), spread(c.sigma, x_t)
        x = x_t.detach().requires_grad_()
        variance = (alpha * scale) ** 2 + sigma**2
        logs = torch.stack([-((x - alpha * centre) ** 2) / (2 * variance) for centre in centres])
        (score,) = torch.autograd.grad(logs.logsumexp(0).sum(), x)
        eps = -sigma * score
        return Solved((x_t - sigma * eps) / alpha, eps)

    return denoise


def test_guidance_by_hand():
    """Two classes N(+-1, 1/4): eps_u weighs the classes' noises by their posteriors."""
    path, t, scale = VPCosine(), torch.full((7,), 0.4, dtype=F64), 2.5
    x_t = torch.linspace(-2, 2, 7, dtype=F64)[:, None]
    alpha, sigma = (c.item() for c in at(path, 0.4)[:2])
    variance = alpha**2 / 4 + sigma**2
    noises = [sigma * (x_t - alpha * centre) / variance for centre in (1.0, -1.0)]
    share = torch.sigmoid(2 * alpha * x_t / variance)
    mixed = share * noises[0] + (1 - share) * noises[1]
    wanted = mixed + scale * (noises[0] - mixed)
    conditional, both = score_denoiser(path, [1.0]), score_denoiser(path, [1.0, -1.0])
    x, eps = guided(conditional, both, scale)(x_t, t)
    torch.testing.assert_close(eps, wanted)
    torch.testing.assert_close(alpha * x + sigma * eps, x_t)


def test_guidance_only_where_it_counts():
    path, x_t = Linear(), normal(4, 3)
    t = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=F64)
    conditional, other = score_denoiser(path, [1.0]), Recorder(score_denoiser(path, [1.0, -1.0]))
    plain = conditional(x_t, t)
    for same in (guided(conditional, other, 1.0), guided(conditional, other, 3.0, (0.95, 1.0))):
        assert all(torch.equal(a, b) for a, b in zip(same(x_t, t), plain, strict=True))
    assert other.t == []
    within = guided(conditional, other, 3.0, (0.3, 0.6))(x_t, t)
    whole = guided(conditional, other, 3.0)(x_t, t)
    for row, expected in enumerate((plain, whole, whole, plain)):
        torch.testing.assert_close(within.eps[row], expected.eps[row])
        torch.testing.assert_close(within.x[row], expected.x[row])
    assert not torch.allclose(whole.eps, plain.eps)


# --- inversion and imputation --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [VPLinear(), Linear(), Trigonometric(), VE(0.02, 20.0)], ids=repr)
@pytest.mark.parametrize(
    ("sampler", "within"),
    [(DDIM(), 0.05), (Heun(), 0.02), (DPMSolverPP2M(), 0.02), (AdamsMoulton(), 2e-3), (Dopri5(), 2e-3)],
    ids=repr,
)
def test_inversion_and_back(sampler, within, path):
    data = torch.tensor([[0.9, -1.3], [-0.8, 0.4]], dtype=F64)
    denoise, times = two_modes(path), LogSNRGrid(sigma_min=0.01)(path, 200)
    noise = invert(sampler, denoise, path, times, data)
    assert (noise - data).abs().min() > 0.05
    torch.testing.assert_close(sampler.run(denoise, path, times, noise), data, atol=within, rtol=0)


def test_inversion_finds_the_noise():
    path, z = Linear(), normal(6, 3)
    data = GAUSSIAN.flow(path, z, 1.0, 0.0)
    noise = invert(AdamsMoulton(), GAUSSIAN.denoiser(path), path, UniformGrid()(path, 100), data)
    torch.testing.assert_close(noise, z, atol=1e-4, rtol=0)


@dataclass
class Correlated:
    """N(mean, covariance) of four pixels and its optimal denoiser."""

    mean: Tensor
    covariance: Tensor

    def denoiser(self, path):
        values, basis = torch.linalg.eigh(self.covariance)

        def denoise(x_t, t):
            c = path.at(t[0])
            z = (x_t - c.alpha * self.mean) @ basis
            variance = c.alpha**2 * values + c.sigma**2
            x = self.mean + (z * c.alpha * values / variance) @ basis.T
            return Solved(x, (z * c.sigma / variance) @ basis.T)

        return denoise

    def conditional(self, known, values):
        other = ~known
        gain = self.covariance[other][:, known] @ self.covariance[known][:, known].inverse()
        mean = self.mean[other] + gain @ (values - self.mean[known])
        return mean, self.covariance[other][:, other] - gain @ self.covariance[known][:, other]


def imputed(path, n=600, **options):
    places = torch.arange(4, dtype=F64)
    model = Correlated(
        torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=F64), 0.9 ** (places[:, None] - places).abs()
    )
    known = torch.tensor([True, False, True, False])
    values = torch.tensor([1.2, torch.nan, 0.9, torch.nan], dtype=F64)
    images = values.expand(n, 4).clone()
    end = impute(
        Ancestral(),
        model.denoiser(path),
        path,
        LogSNRGrid(sigma_min=0.03)(path, 40),
        images,
        ~known,
        generator=seeded(3),
        **options,
    )
    assert torch.equal(end[:, known], images[:, known])
    mean, covariance = model.conditional(known, values[known])
    z = (end[:, ~known] - mean) / covariance.diagonal().sqrt()
    return z.mean(0).abs().max().item(), (z.var(0) - 1).abs().max().item()


@pytest.mark.parametrize("path", [VPCosine(), Linear()], ids=repr)
def test_imputation_draws_from_the_conditional(path):
    runs = [imputed(path, resamplings=1), imputed(path, resamplings=15), imputed(path, resamplings=8, jump=5)]
    (plain, _), *resampled = runs
    assert plain > 0.4  # replacement alone: the test can tell
    for off_mean, off_variance in resampled:
        assert off_mean < 0.15 and off_variance < 0.3


def test_imputation_refuses_no_resamplings():
    x = normal(2, 3)
    with pytest.raises(GenzooError, match="resamplings"):
        impute(DDIM(), two_modes(Linear()), Linear(), UniformGrid()(Linear(), 3), x, x > 0, resamplings=0)
