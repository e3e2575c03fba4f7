"""Samplers against closed forms of Gaussian data, measured orders of convergence, and diffusers' schedulers."""

import math

import pytest
import torch
from gaussian_paths import (
    F64,
    FLOWS,
    GAUSSIAN,
    GRIDS,
    NOISY,
    PATHS,
    Recorder,
    at,
    from_data,
    normal,
    seeded,
    two_modes,
)

from genzoo.core.errors import GenzooError
from genzoo.models.diffusion.samplers.editing import invert
from genzoo.models.diffusion.samplers.solvers import (
    DDIM,
    AdamsMoulton,
    Ancestral,
    Dopri5,
    DPMSolverPP2M,
    Euler,
    Heun,
)
from genzoo.models.diffusion.samplers.time_grids import LogSNRGrid, UniformGrid
from genzoo.objectives.denoising.betas import GivenBetas
from genzoo.objectives.denoising.paths import (
    DiscreteBetas,
    Linear,
    Prediction,
    SubVP,
    Trigonometric,
    VelocityTarget,
    VPCosine,
    VPLinear,
    append_dims,
    to_prediction,
)

# --- diffusers -----------------------------------------------------------------------------------------------


def network(x, t):
    """Something nonlinear; `t` is in 0 .. 1."""
    return torch.tanh(1.3 * x + 0.2 * x.roll(1, -1) ** 2 - t) + 0.1 * torch.cos(5 * t)


def noise_denoiser(path):
    def denoise(x_t, t):
        c, eps = path.at(t), network(x_t, t[0].float())
        return Prediction((x_t - append_dims(c.sigma, x_t) * eps) / append_dims(c.alpha, x_t), eps)

    return denoise


def theirs_and_ours(scheduler, sampler, steps, last=0.0, **options):
    """What both give to the network at each step, and the last sample."""
    scheduler.set_timesteps(steps)
    path = DiscreteBetas(GivenBetas(tuple(scheduler.betas.double().tolist())))
    times = torch.cat([(scheduler.timesteps.double() + 1) / path.steps, torch.tensor([last]).double()])
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
        return to_prediction(x_t, network(x_t, t[0].float()), Linear().at(t), VelocityTarget())

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
