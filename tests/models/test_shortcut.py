"""Shortcut models: the dyadic grid, self-consistency in closed form, and that long steps are learnt."""

import copy
import math

import pytest
import torch

from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import Batch, DataSpec
from genzoo.data.toy import GaussianMixture
from genzoo.models.diffusion.denoising_model import DiffusionConfig, Sampling
from genzoo.models.diffusion.samplers.solvers import Euler
from genzoo.models.diffusion.samplers.time_grids import UniformGrid
from genzoo.models.diffusion.shortcut import ShortcutConfig
from genzoo.models.preset import build
from genzoo.nn.conv_unet import ConvUNetConfig
from genzoo.nn.mlp import MLPConfig
from genzoo.objectives.denoising.paths import Linear, VelocityTarget
from genzoo.objectives.denoising.shortcut_objective import (
    Stretches,
    asked_length,
    bootstrap_target,
    draw_rows,
    draw_stretches,
    lead_back,
)
from genzoo.objectives.denoising.times import StratifiedTimes
from genzoo.objectives.elbo import normal_noise
from genzoo.objectives.likelihood.diffusion_bound import BoundProtocol
from genzoo.objectives.likelihood.divergence import ExactDivergence
from genzoo.objectives.likelihood.ode import DormandPrince, OdeProtocol, RungeKutta4
from genzoo.testing import check_model

MEAN, STD = 0.7, 0.4
TINY = ShortcutConfig(network=ConvUNetConfig(fine=8, channels=(16,), blocks=1, attention=1))
VECTORS = ShortcutConfig(network=MLPConfig(width=32, blocks=2))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def full(value, n=5):
    return torch.full((n,), value, dtype=torch.float64)


# --- a flow whose map is known: data N(MEAN, STD^2) --------------------------------------------------------------


def deviation(t):
    return ((1 - t) ** 2 * STD**2 + t**2).sqrt()


def velocity(x_t, t, d=None):
    """E[eps - x | x_t], for instants."""
    t = t[:, None]
    slope = (t - (1 - t) * STD**2) / deviation(t) ** 2
    return slope * (x_t - (1 - t) * MEAN) - MEAN


def exact(x_t, t, d):
    """(x_t - x_{t-d}) / d along the exact flow, which keeps the quantiles of Gaussians."""
    s, end = t[:, None], (t - d)[:, None]
    moved = (1 - end) * MEAN + deviation(end) / deviation(s) * (x_t - (1 - s) * MEAN)
    return torch.where(d[:, None] == 0, velocity(x_t, t), (x_t - moved) / d.where(d > 0, 1.0)[:, None])


def by_euler(finest):
    """The average velocity of Euler's method in steps of 1 / finest."""

    def average(x_t, t, d):
        steps = (d * finest).round()
        x = x_t
        for k in range(int(steps.max())):
            short = torch.where(k < steps, 1.0 / finest, 0.0)[:, None]
            x = x - short * velocity(x, t - k / finest)
        return torch.where(d[:, None] == 0, velocity(x_t, t), (x_t - x) / d.where(d > 0, 1.0)[:, None])

    return average


def test_the_example_is_the_flow_it_claims_to_be():
    x, t = noise(5, 3), torch.linspace(0.3, 1, 5, dtype=torch.float64)
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(exact(x, t, full(1e-7)), velocity(x, t), **close)
    end = lead_back(exact, x, steps=1, finest=8)
    torch.testing.assert_close(end, MEAN + STD * x, **close)  # noise to data in one step


@pytest.mark.parametrize("finest", [2, 8, 128])
def test_the_exact_average_velocity_is_consistent(finest):
    """But for the shortest stretches, whose halves are taken for instants."""
    stretches = draw_stretches(200, finest, generator())
    x, long = noise(200, 3), stretches.lengths * finest > 2
    gap = bootstrap_target(exact, x, stretches, finest) - exact(x, *stretches)
    assert (gap[long].abs() < 1e-12).all()
    assert gap[~long].abs().max() > 1e-3


@pytest.mark.parametrize("finest", [2, 16])
def test_eulers_method_solves_all_equations(finest):
    stretches = draw_stretches(200, finest, generator())
    x, average = noise(200, 3), by_euler(finest)
    target = bootstrap_target(average, x, stretches, finest)
    torch.testing.assert_close(target, average(x, *stretches), rtol=0, atol=1e-12)


def test_only_eulers_method_solves_them():
    """Bootstrapping from the velocity alone, length after length, leads there."""

    def bootstrapped(x_t, t, d):
        if not d.any():
            return velocity(x_t, t)
        return bootstrap_target(bootstrapped, x_t, Stretches(t, d), 16)

    x = noise(5, 3)
    one_step = lead_back(bootstrapped, x, steps=1, finest=16)
    torch.testing.assert_close(one_step, lead_back(velocity, x, steps=16, finest=16), rtol=0, atol=1e-12)
    for t, d in ((0.75, 0.25), (0.5, 0.5), (0.125, 0.125)):
        expected = by_euler(16)(x, full(t), full(d))
        torch.testing.assert_close(bootstrapped(x, full(t), full(d)), expected, rtol=0, atol=1e-12)


def test_what_is_not_consistent_has_a_loss():
    stretches = draw_stretches(500, 16, generator())
    x, long = noise(500, 1), stretches.lengths > 1 / 4
    for wrong in (velocity, lambda x_t, t, d: exact(x_t, t, d / 2), lambda x_t, t, d: -exact(x_t, t, d)):
        gap = bootstrap_target(wrong, x, stretches, 16) - wrong(x, *stretches)
        assert gap[long].square().mean() > 1e-3


# --- the grid ----------------------------------------------------------------------------------------------------


def test_stretches_are_the_steps_of_sampling():
    finest, n = 16, 40_000
    times, lengths = draw_stretches(n, finest, generator())
    assert times.dtype == lengths.dtype == torch.float64
    pairs = {(t / d, 1 / d) for t, d in zip(times.tolist(), lengths.tolist(), strict=True)}
    assert pairs == {(float(k), 2.0**j) for j in range(4) for k in range(1, 2**j + 1)}
    assert (times - lengths >= 0).all() and (times <= 1).all()
    for j in range(4):
        of_length = times[lengths == 2.0**-j] * 2**j
        assert len(of_length) == n / 4
        counts = torch.bincount(of_length.long())[1:]
        expected = n / 4 / 2**j
        assert ((counts - expected).abs() <= 5 * math.sqrt(expected)).all()


def test_short_draws_take_turns():
    firsts = {draw_stretches(1, 16, generator(seed)).lengths.item() for seed in range(64)}
    assert firsts == {1.0, 0.5, 0.25, 0.125}
    assert draw_stretches(3, 2, generator()).lengths.tolist() == [1.0] * 3
    assert draw_stretches(0, 16, generator()).times.shape == (0,)


def test_the_finest_step_is_asked_for_as_an_instant():
    lengths = torch.tensor([0.0, 1 / 128, 1 / 64, 1.0], dtype=torch.float64)
    assert asked_length(lengths, 128).tolist() == [0.0, 0.0, 1 / 64, 1.0]


def test_the_share_that_is_bootstrapped():
    assert {int(draw_rows(64, 0.25, generator(seed)).sum()) for seed in range(9)} == {16}
    few = torch.stack([draw_rows(2, 0.25, generator(seed)) for seed in range(4000)]).double()
    assert ((few.mean(0) - 0.25).abs() < 5 * math.sqrt(0.25 * 0.75 / 4000)).all()  # each row alike
    assert few.sum(1).max() == 1


@pytest.mark.parametrize("steps", [1, 2, 4, 16])
def test_sampling_asks_once_per_step(steps):
    asked = []

    def average(x_t, t, d):
        asked.append((t[0].item(), d[0].item()))
        return exact(x_t, t, torch.full_like(d, 1 / steps))

    x = noise(5, 3)
    torch.testing.assert_close(lead_back(average, x, steps, 16), MEAN + STD * x, rtol=0, atol=1e-12)
    told = 0.0 if steps == 16 else 1 / steps
    assert asked == [(k / steps, told) for k in range(steps, 0, -1)]


@pytest.mark.parametrize("steps", [0, -1, 3, 32])
def test_steps_that_there_are_not(steps):
    model = build(ShortcutConfig(network=MLPConfig(width=8), finest=16), DataSpec((2,), levels=None))
    with pytest.raises(GenzooError, match="power of two up to 16"):
        model.draw(2, steps=steps)
    with pytest.raises(GenzooError, match="power of two up to 16"):
        build(ShortcutConfig(calls=steps, finest=16), DataSpec((1, 4, 4)))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (ShortcutConfig(finest=100), "power of two"),
        (ShortcutConfig(finest=1, calls=1), "finest >= 2"),
        (ShortcutConfig(bootstrap_fraction=1.0), "bootstrap_fraction"),
        (ShortcutConfig(network=MLPConfig(), protocol=BoundProtocol()), "OdeProtocol"),
    ],
)
def test_configurations_that_do_not_go_together(config, said):
    with pytest.raises(GenzooError, match=said):
        build(config, DataSpec((2,), levels=None))


# --- the model ---------------------------------------------------------------------------------------------------


def perturbed(model, scale=0.1):
    g = generator(7)
    with torch.no_grad():
        for p in model.parameters():
            p += scale * torch.randn(p.shape, generator=g)
    return model


def example(spec, n=16):
    g = generator(3)
    levels = spec.levels
    x = torch.randn(n, *spec.shape, generator=g)
    if levels is not None:
        x = torch.randint(levels, (n, *spec.shape), generator=g)
    if spec.cond == "class":
        return Batch(x, torch.arange(n) % spec.cond_size)
    return Batch(x, torch.randn(n, spec.cond_size, generator=g) if spec.cond else None)


SPECS = [
    (TINY, DataSpec((1, 4, 4), levels=2)),
    (TINY, DataSpec((3, 3, 4), levels=256, cond="class", cond_size=3)),
    (TINY, DataSpec((1, 5, 4), levels=17, cond="vector", cond_size=6)),
    (VECTORS, DataSpec((5,), levels=None, cond="vector", cond_size=2)),
]


@pytest.mark.parametrize(("config", "spec"), SPECS, ids=["plain", "class", "vector", "real"])
def test_the_loss_and_its_parts(config, spec):
    model, batch = perturbed(build(config, spec)), example(spec)
    loss = model.loss(batch, generator=generator())
    flow, consistency = loss.parts["flow"], loss.parts["consistency"]
    assert loss.total.isfinite().all() and loss.total.shape == (16,)
    assert ((flow > 0) ^ (consistency > 0)).all() and int((consistency > 0).sum()) == 4
    torch.testing.assert_close(flow.mean(), loss.total[flow > 0].mean())
    torch.testing.assert_close(consistency.mean(), loss.total[consistency > 0].mean())
    alone = model.loss(Batch(batch.images[:1], None if batch.cond is None else batch.cond[:1]))
    assert alone.total.isfinite().all()


def test_untrained_the_flow_loss_is_the_targets_square():
    """The network says 0, so E |eps - x|^2 = 1 + E x^2, and consistency costs nothing."""
    spec = DataSpec((4,), levels=None)
    x = 2 * torch.randn(4000, 4, generator=generator())
    parts = build(VECTORS, spec).loss(Batch(x), generator=generator(1)).parts
    assert parts["flow"].mean().item() == pytest.approx(5, rel=0.05)
    assert not parts["consistency"].any()


def test_the_loss_and_its_gradient_written_out():
    """With a frozen copy for a teacher: nothing flows back through the target."""
    model, g = perturbed(build(VECTORS, DataSpec((3,), levels=None))), generator(5)
    teacher, x = copy.deepcopy(model).average(None), noise(32, 3).float()
    loss = model.loss(Batch(x), generator=generator(5))
    eps, rows = normal_noise(x, g), draw_rows(32, 0.25, g)
    instants, (times, lengths) = StratifiedTimes().draw(32, Linear(), g).times, draw_stretches(32, 128, g)
    expected = []
    for i in range(32):
        t, d = (times[i : i + 1], lengths[i : i + 1]) if rows[i] else (instants[i : i + 1], full(0.0, 1))
        x_t = ((1 - t) * x[i] + t * eps[i]).float()[None]
        y = eps[i] - x[i]
        if rows[i]:
            half = torch.where(d > 1 / 64, d / 2, 0.0)
            first = teacher(x_t, t, half)
            second = teacher(x_t - (d / 2).float() * first, t - d / 2, half)
            y = ((first + second) / 2).detach()
        expected.append((model.average(None)(x_t, t, d) - y).square().mean())
    torch.testing.assert_close(loss.total, torch.stack(expected), rtol=1e-4, atol=1e-6)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(loss.total.sum(), parameters)
    for a, b in zip(ours, torch.autograd.grad(sum(expected), parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_reach_every_parameter(precision):
    """Also where autocast keeps the weights' casts that it made without gradients."""
    spec = DataSpec((1, 4, 4), levels=17, cond="class", cond_size=3)
    model = perturbed(build(TINY, spec))
    with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
        loss = model.loss(example(spec, 32), generator=generator())
    loss.total.mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_teacher_has_no_dropout():
    spec, seen = DataSpec((3,), levels=None), []
    config = ShortcutConfig(network=MLPConfig(width=16, blocks=1, dropout=0.5))
    model = perturbed(build(config, spec)).train()
    model.network.register_forward_pre_hook(
        lambda net, _: seen.append((net.training, net.blocks[0].dropout.training, torch.is_grad_enabled()))
    )
    model.loss(example(spec), generator=generator())
    assert seen == [(True, True, True), (False, False, False), (False, False, False)]
    assert model.training and model.network.blocks[0].dropout.training


def test_length_time_and_condition_matter():
    model = perturbed(build(VECTORS, DataSpec((3,), levels=None, cond="class", cond_size=2)), 0.3)
    x, zeros = noise(5, 3).float(), torch.zeros(5, dtype=torch.long)
    average = model.average(model.condition(zeros, 5))
    with torch.no_grad():
        y = average(x, full(1.0), full(0.0))
        for length in (1 / 64, 1 / 2, 1.0):
            assert ((average(x, full(1.0), full(length)) - y).abs().amax(1) > 1e-3).all()
        assert ((average(x, full(0.5), full(0.0)) - y).abs().amax(1) > 1e-3).all()
        other = model.average(model.condition(zeros + 1, 5))(x, full(1.0), full(0.0))
    assert ((other - y).abs().amax(1) > 1e-3).all()


def test_length_clock_is_even_in_the_logarithm():
    model = build(ShortcutConfig(network=MLPConfig(width=8), finest=16), DataSpec((2,), levels=None))
    lengths = torch.tensor([0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1], dtype=torch.float64)
    assert model.c_length(lengths).tolist() == [0.0, 0.0, 250.0, 500.0, 750.0, 1000.0]


def test_likelihood_is_the_protocols():
    protocol = OdeProtocol(solver=DormandPrince(1e-6), divergence=ExactDivergence())
    spec = DataSpec((2,), levels=None)
    model = build(ShortcutConfig(network=MLPConfig(width=8), protocol=protocol), spec)
    ll = model.log_likelihood(x := noise(6, 2).float())
    assert model.likelihood is ll.kind is LikelihoodKind.ESTIMATE
    assert not ll.details["conditional"]
    # a network that says 0 moves nothing: the model is N(0, I)
    expected = -0.5 * x.double().square().sum(1) - math.log(2 * math.pi)
    torch.testing.assert_close(ll.nats, expected, rtol=0, atol=1e-4)


QUICK = OdeProtocol(t_min=0.0, draws=2, solver=RungeKutta4(2), gate_bits=1.0)
OUTSIDE = {"estimate_sums_to_one": "the density of a continuous model reaches beyond the range of the images"}


@pytest.mark.parametrize(
    ("network", "spec"),
    [
        (ConvUNetConfig(fine=8, channels=(16,), blocks=1, attention=0), DataSpec((1, 3, 3), levels=2)),
        (MLPConfig(width=24, blocks=1), DataSpec((3, 3, 4), levels=4, cond="class", cond_size=3)),
    ],
    ids=["plain", "class"],
)
def test_conformance(network, spec):
    check_model(build(ShortcutConfig(network=network, protocol=QUICK), spec), expected_failures=OUTSIDE)


# --- long steps are learnt ---------------------------------------------------------------------------------------


def energy_distance(a, b):
    """2 E|A - B| - E|A - A'| - E|B - B'|: 0 for equal distributions (Szekely & Rizzo 2013)."""

    def distance(x, y):
        return torch.cdist(x.double(), y.double()).mean()

    return (2 * distance(a, b) - distance(a, a) - distance(b, b)).item()


@pytest.mark.slow
def test_one_step_draws_what_a_flow_needs_many_for():
    """Eight Gaussians: one step of a plain flow, trained for as long, ends in the middle of all of them."""
    toy, network = GaussianMixture(), MLPConfig(width=96, blocks=2)
    training = TrainConfig(batch_size=128, learning_rate=4e-3, precision="fp32")
    data, fresh = toy.sample(4096, generator()), toy.sample(1500, generator(1))
    config = ShortcutConfig(network=network, finest=32, training=training)
    model = build(config, toy.spec).fit(data, steps=400, progress=False)
    single = Sampling(Euler(), UniformGrid(), steps=1)
    plain = DiffusionConfig(
        path=Linear(), target=VelocityTarget(), network=network, sampling=single, protocol=OdeProtocol(),
        training=training,
    )  # fmt: skip
    flow = build(plain, toy.spec).fit(data, steps=400, progress=False)

    def distance(samples):
        return energy_distance(samples, fresh)

    ours = {steps: distance(model.draw(1500, steps=steps, generator=generator(2))) for steps in (1, 4)}
    assert max(ours.values()) < 0.03
    assert distance(flow.sample(1500, generator=generator(2))) > 10 * max(ours.values())
