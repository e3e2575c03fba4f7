"""The diffusion model against Gaussian data, where the best network is known, and its promises one by one."""

import json
import math

import pytest
import torch
from enumeration import perturbed
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from genzoo import create, load, load_data
from genzoo.core.config import TrainConfig, from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import Batch, DataSpec
from genzoo.models.diffusion.denoising_model import DiffusionConfig
from genzoo.models.diffusion.samplers.sampling import Sampling
from genzoo.models.preset import build
from genzoo.models.registry import every_preset
from genzoo.nn.mlp import MLPConfig
from genzoo.objectives.denoising.couplings import ClassAwareOptimalTransport, Independent, OptimalTransport
from genzoo.objectives.denoising.noise_conditioning import TimeConditioning
from genzoo.objectives.denoising.paths import (
    VE,
    DataTarget,
    EDMTarget,
    Linear,
    NoiseTarget,
    Trigonometric,
    VelocityTarget,
    VPCosine,
    VPLinear,
    VTarget,
)
from genzoo.objectives.denoising.times import StratifiedTimes, UniformLogSNR
from genzoo.objectives.elbo import normal_noise
from genzoo.objectives.likelihood.divergence import ExactDivergence
from genzoo.objectives.likelihood.ode import OdeProtocol, RungeKutta4

PRESETS = every_preset()

F64 = torch.float64
DIFFUSION = [name for name, preset in PRESETS.items() if isinstance(preset.sizes["tiny"], DiffusionConfig)]
SMALL = MLPConfig(width=16, blocks=1)
REAL = DataSpec((3,), levels=None)
GREY = DataSpec((1, 2, 2), levels=17)
MEAN = torch.tensor([0.5, -0.3, 0.2], dtype=F64)
COVARIANCE = torch.tensor([[0.5, 0.3, -0.1], [0.3, 0.4, 0.1], [-0.1, 0.1, 0.3]], dtype=F64)
DATA = MultivariateNormal(MEAN, COVARIANCE)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(n, seed=0):
    """Draws of `DATA`, float32 `[n, 3]`."""
    eps = torch.randn(n, 3, generator=rng(seed), dtype=F64)
    return (MEAN + eps @ torch.linalg.cholesky(COVARIANCE).T).float()


def exact_ode(t_min=0.0, steps=40, gate=0.01):
    return OdeProtocol(t_min=t_min, solver=RungeKutta4(steps), divergence=ExactDivergence(), gate_bits=gate)


# --- networks whose truth is known -----------------------------------------------------------------------------


class Optimal(nn.Module):
    """E[y | x_t] of N(mean, covariance); with a condition its embedding's first entries are added to the mean."""

    def __init__(self, config, mean, covariance):
        super().__init__()
        self.config, self.covariance = config, covariance.double()
        self.mean = nn.Parameter(mean.double())

    def forward(self, x, c_noise, cond=None):
        t = c_noise.double() / 1000
        at, shape = self.config.path.at(t), x.shape
        alpha, sigma, x_t = at.alpha[:, None], at.sigma[:, None], x.double().flatten(1)
        if self.config.scale_input:
            x_t = x_t * (sigma**2 + (alpha * self.config.sigma_data) ** 2).sqrt()
        mean = self.mean if cond is None else self.mean + cond[:, : x_t.shape[1]].double()
        marginal = alpha[:, :, None] ** 2 * self.covariance + torch.diag_embed(sigma.expand_as(x_t) ** 2)
        white = torch.linalg.solve(marginal, x_t - alpha * mean)
        a, b = self.config.target.coefficients(at)
        y = a[:, None] * (mean + alpha * white @ self.covariance) + b[:, None] * sigma * white
        return y.view(shape).to(x.dtype)


class Recorder(nn.Module):
    """Says nothing and remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, x, c_noise, cond=None):
        self.x, self.t, self.cond = x, c_noise.double() / 1000, cond
        return self.nothing * x


def optimal_model(spec=REAL, mean=MEAN, covariance=COVARIANCE, **options):
    """A model of Gaussian data; flow matching unless told otherwise."""
    flow = {
        "path": Linear(),
        "target": VelocityTarget(),
        "c_noise": TimeConditioning(),
        "network": SMALL,
        "times": StratifiedTimes(),
        "sampling": Sampling(steps=40, precision="fp32"),
        "protocol": exact_ode(),
    }
    model = build(DiffusionConfig(**{**flow, **options}), spec)
    model.network = Optimal(model.config, mean, covariance)
    return model.eval()


def recording(name, spec, **options):
    model = create(name, spec, "tiny", **options)
    model.network = Recorder()
    return model


ROWS = {
    "noise": {"path": VPLinear(beta_max=40.0), "target": NoiseTarget(), "protocol": exact_ode(1e-5)},
    "data": {"path": Linear(), "target": DataTarget(), "protocol": exact_ode(1e-3), "t_min": 0.01},
    "v": {"path": Trigonometric(), "target": VTarget()},
    "velocity": {},
    "F": {"path": VE(), "target": EDMTarget(), "scale_input": True, "protocol": exact_ode(steps=96)},
    "F, linear": {"path": Linear(), "target": EDMTarget(), "scale_input": True},
}
rows = pytest.mark.parametrize("row", ROWS)


# --- Gaussian data ---------------------------------------------------------------------------------------------


def flow_log_prob(path, first, x):
    """What the ODE makes of N(0, sigma(1)^2): x_1 is affine in x, and all covariances have the same axes."""
    start, end = (path.at(torch.tensor(t, dtype=F64)) for t in (first, 1.0))
    values, axes = torch.linalg.eigh(COVARIANCE)
    before, after = (at.alpha**2 * values + at.sigma**2 for at in (start, end))
    x_1 = end.alpha * MEAN + start.alpha * (x.double() - MEAN) @ axes * (after / before).sqrt() @ axes.T
    stretched = 0.5 * (after / before).log().sum() + 3 * start.alpha.log()
    return Normal(0.0, end.sigma).log_prob(x_1).sum(1) + stretched


@rows
def test_the_likelihood_is_the_closed_form(row):
    x, model = gaussian(16), optimal_model(**ROWS[row])
    answer, first = model.log_likelihood(x, generator=rng()), model.config.protocol.t_min
    exact = 3e-4  # 1e-4 per dimension
    assert (answer.nats - flow_log_prob(model.path, first, x)).abs().max() < exact
    charged = 0.03 if row == "F" else exact  # a little of the data is left at sigma = 80
    assert (answer.nats - DATA.log_prob(x.double())).abs().max() < charged
    assert answer.kind is LikelihoodKind.ESTIMATE and answer.details["conditional"] is False


@rows
def test_samples_have_the_mean_and_the_covariance(row):
    n = 8000
    x = optimal_model(**ROWS[row]).sample(n, generator=rng()).double()
    scale = COVARIANCE.diag()
    assert ((x.mean(0) - MEAN).abs() < 4 * (scale / n).sqrt()).all()
    spread = ((scale[:, None] * scale + COVARIANCE**2) / n).sqrt()
    assert ((x.T.cov() - COVARIANCE).abs() < 4 * spread).all()


@rows
def test_the_loss_is_the_error_that_nobody_can_avoid(row):
    """tr Var(y | x_t) = (a - b alpha / sigma)^2 tr (C^-1 + SNR)^-1, whatever the weights."""
    n, model = 20_000, optimal_model(**ROWS[row])
    first = max(model.config.t_min, model.path.t_min)
    t = first + (1 - first) * (torch.arange(20_000, dtype=F64) + 0.5) / 20_000
    at = model.path.at(t)
    a, b = model.target.coefficients(at)
    snr = (at.alpha / at.sigma) ** 2
    left = (1 / (1 / torch.linalg.eigvalsh(COVARIANCE) + snr[:, None])).sum(1)
    expected = (1 - first) * ((a - b * at.alpha / at.sigma) ** 2 * left).mean() / 3
    loss = model.loss(Batch(gaussian(n)), generator=rng(1)).total
    assert abs(loss.mean() - expected) < 4 * loss.std() / n**0.5 < 0.1 * expected


def test_the_loss_bears_the_weights_of_its_times():
    """Times that are not uniform count 1 / density, so that the mean is that over uniform ones; the error does not."""
    later = exact_ode(t_min=1e-3)  # the velocity of this path is infinite at 0
    model = optimal_model(
        path=VPCosine(), target=VTarget(), times=UniformLogSNR(), t_min=1e-3, protocol=later
    )
    x, g = gaussian(6), rng(4)
    loss = model.loss(Batch(x), generator=rng(4))
    normal_noise(x, g)
    drawn = model.times.draw(6, model.path, g, t_min=1e-3)
    assert drawn.weights.std() > 0.1
    torch.testing.assert_close(loss.total, loss.parts["error"] * drawn.weights.float())


@pytest.mark.slow
def test_a_flow_learns_a_mixture_and_is_no_better_than_the_truth():
    data = load_data("toy:gaussian-mixture")
    training = TrainConfig(batch_size=256, learning_rate=8e-3, precision="fp32")
    parts = {"training": training, "network": MLPConfig(width=96, blocks=2), "protocol": exact_ode(steps=20)}
    model = create("flow", data.spec, "tiny", **parts)
    model.fit(data.train, steps=700, progress=False)
    images = data.test.images[:300]
    excess = data.log_prob(images) - model.log_likelihood(images).nats
    assert -3 * excess.std() / len(images) ** 0.5 < excess.mean() < 0.3


# --- coupling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cond", "size", "coupling"),
    [(None, 0, OptimalTransport()), ("class", 3, ClassAwareOptimalTransport()), ("vector", 2, Independent())],
)
def test_the_network_regresses_the_noise_it_was_paired_with(cond, size, coupling):
    spec, n = DataSpec((4,), None, cond, size), 24
    model = recording("ot-flow", spec)
    x, labels = 2 * torch.randn(n, 4, generator=rng()), torch.arange(n) % 3
    given = {None: None, "class": labels, "vector": torch.randn(n, 2, generator=rng(1))}[cond]
    loss = model.loss(Batch(x, given), generator=rng(7))
    drawn = normal_noise(x, rng(7))  # the first that the loss draws
    paired = coupling.pair(x, drawn, labels)
    assert model.config.coupling == coupling and (torch.equal(paired, drawn) == (cond == "vector"))
    t = model.network.t[:, None]
    expected = ((1 - t) * x + t * paired).float()
    torch.testing.assert_close(model.network.x, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(loss.total, (paired - x).square().mean(1))


# --- conditions ------------------------------------------------------------------------------------------------

CLASSES = DataSpec((3,), None, "class", 3)
PLACES = torch.tensor([[1.0, 0, 0], [-1, 0.5, 0], [0, -1, 1]])


def conditional_model(**options):
    """N(MEAN + PLACES[y], COVARIANCE) for class y, and N(MEAN, COVARIANCE) without one."""
    model = optimal_model(CLASSES, **options)
    with torch.no_grad():
        model.condition.embed.weight.zero_()[:, :3] = PLACES
    return model


def test_conditions_are_left_out_in_training_only():
    n, model = 4000, recording("flow", CLASSES, cond_dropout=0.25)
    batch = Batch(torch.zeros(n, 3), torch.arange(n) % 3)
    nn.init.constant_(model.null, 7.0)
    for training, share in ((True, 0.25), (False, 0.0)):
        model.train(training).loss(batch, generator=rng())
        out = (model.network.cond == 7).all(1)
        assert abs(out.double().mean() - share) <= 4 * (share * (1 - share) / n) ** 0.5
        assert torch.equal(model.network.cond[~out], model.condition(batch.cond, n)[~out])


def test_classes_are_summed_over_exactly():
    x, model = gaussian(6), conditional_model(protocol=exact_ode(steps=10))
    model.chunk = 5
    each = torch.stack([DATA.log_prob(x.double() - place) for place in PLACES.double()])
    expected = each.logsumexp(0) - math.log(3)
    torch.testing.assert_close(model.log_likelihood(x).nats, expected, rtol=0, atol=1e-3)
    y = torch.arange(6) % 3
    given = model.log_likelihood(x, y)
    torch.testing.assert_close(given.nats, each.gather(0, y[None])[0], rtol=0, atol=1e-3)
    assert given.details["conditional"] is True


def test_guidance():
    model = conditional_model()
    y, x_1 = torch.arange(12) % 3, model.noise(12, rng())

    def drawn(weaker=None, **options):
        sampling = Sampling(steps=8, precision="fp32", **options)
        return model.decode(x_1, y, sampling=sampling, weaker=weaker)

    plain, strong = drawn(), drawn(guidance=3.0)
    assert torch.equal(plain, drawn(guidance=1.0))
    assert ((strong - plain) * PLACES[y]).sum(1).min() > 0.1  # further from where nothing is said
    assert torch.equal(plain, drawn(guidance=3.0, guidance_from=0.1, guidance_to=0.1))
    some = drawn(guidance=3.0, guidance_from=0.2, guidance_to=0.6)
    assert not torch.allclose(some, plain, atol=1e-3) and not torch.allclose(some, strong, atol=1e-3)
    assert torch.equal(drawn(model, guidance=3.0), plain)  # it is no better than itself
    deaf = conditional_model()
    nn.init.zeros_(deaf.condition.embed.weight)
    torch.testing.assert_close(drawn(deaf, guidance=3.0), strong)  # its own condition counts


def test_guidance_needs_something_to_lead_away_from():
    sampling, weaker = Sampling(steps=4, guidance=2.0), optimal_model(mean=0 * MEAN)
    for model in (optimal_model(), conditional_model(cond_dropout=0.0)):
        with pytest.raises(GenzooError, match="or give a weaker model"):
            model.draw(2, sampling=sampling)
    model = optimal_model()
    led = model.draw(2, sampling=sampling, weaker=weaker, generator=rng())
    assert not torch.allclose(led, model.draw(2, generator=rng()), atol=1e-2)


# --- images in, images out -------------------------------------------------------------------------------------


def grey_model(**options):
    """Gaussian grey images: neighbours are alike."""
    line = torch.arange(4, dtype=F64)
    covariance = 0.09 * torch.exp(-(line[:, None] - line).abs() / 3) + 0.002 * torch.eye(4, dtype=F64)
    return optimal_model(GREY, torch.zeros(4), covariance, **options)


@pytest.mark.parametrize(
    ("name", "spec"), [("flow", REAL), ("ddpm-likelihood", GREY), ("edm", GREY), ("edm", REAL)]
)
def test_imputation_keeps_what_is_known(name, spec):
    model = perturbed(create(name, spec, "tiny", network=SMALL, sampling=Sampling(steps=4)))
    images = gaussian(7) if spec is REAL else torch.full((7, 1, 2, 2), 16, dtype=torch.uint8)
    missing = torch.zeros(spec.shape, dtype=torch.bool)
    missing[..., 1:] = True
    model.chunk = 3
    filled = model.impute(images, missing, resamplings=2, generator=rng())
    assert filled.shape == images.shape and filled.dtype == images.dtype
    assert torch.equal(filled[..., :1], images[..., :1])
    assert (filled[..., 1:] != images[..., 1:]).double().mean() > 0.5


def test_imputation_draws_from_the_conditional():
    n, model = 1500, optimal_model(sampling=Sampling(steps=50, precision="fp32"))
    known = torch.tensor([1.2, -9.0, -0.4]).expand(n, 3)  # the middle one must not be read
    drawn = model.impute(known, torch.tensor([False, True, False]), resamplings=10, generator=rng())[:, 1]
    keep = torch.tensor([0, 2])
    gain = torch.linalg.solve(COVARIANCE[keep][:, keep], COVARIANCE[keep, 1])
    mean = MEAN[1] + (known[0, keep].double() - MEAN[keep]) @ gain
    variance = COVARIANCE[1, 1] - COVARIANCE[1, keep] @ gain
    assert abs(drawn.mean() - mean) < 0.08 * variance.sqrt() + 3 * (variance / n).sqrt()
    assert drawn.var() == pytest.approx(variance.item(), rel=0.2)


@pytest.mark.parametrize("path", [Linear(), Trigonometric()], ids=repr)
def test_variations_are_as_different_as_asked(path):
    model, x = optimal_model(path=path), gaussian(2000)
    alike = []
    for strength in (0.02, 0.5, 1.0):
        pair = torch.stack([x[:, 0], model.vary(x, strength, generator=rng(1))[:, 0]])
        assert pair[1].std() == pytest.approx(pair[0].std().item(), rel=0.1)
        alike.append(torch.corrcoef(pair)[0, 1].item())
    assert alike[0] > 0.99 > 0.9 > alike[1] > 0.2 and abs(alike[2]) < 0.08
    for strength in (0.0, 1.5):
        with pytest.raises(GenzooError):
            model.vary(x, strength)


def test_encoding_finds_the_noise():
    """The flow of a Gaussian on the linear path is x_1 = C^(-1/2) (x - mean)."""
    x, (values, vectors) = gaussian(9), torch.linalg.eigh(COVARIANCE)
    model = optimal_model()
    model.chunk = 4
    expected = (x.double() - MEAN) @ vectors @ torch.diag(values**-0.5) @ vectors.T
    torch.testing.assert_close(model.encode(x).double(), expected, rtol=0, atol=3e-3)


@pytest.mark.parametrize(
    "options",
    [{}, {"path": VPCosine(), "target": VTarget(), "protocol": exact_ode(t_min=1e-3)}, ROWS["F"]],
    ids=["", "v", "F"],
)
def test_images_come_back_from_their_noise(options):
    model, there_and_back = grey_model(**options), Sampling(steps=100, precision="fp32")
    images = model.sample(100, generator=rng())
    again = model.decode(model.encode(images), sampling=there_and_back)
    assert again.dtype == torch.uint8 and (again == images).double().mean() > 0.98
    assert images.double().std() > 1


def test_interpolations_end_at_the_images():
    model = grey_model()
    images = model.sample(6, generator=rng())
    between = model.interpolate(images[:3], images[3:], 5)
    assert between.shape == (3, 5, 1, 2, 2) and between.dtype == torch.uint8
    for end, wanted in ((between[:, 0], images[:3]), (between[:, -1], images[3:])):
        assert (end.long() - wanted).abs().max() <= 1
    steps = between.long().diff(dim=1).abs().amax((1, 2, 3, 4))
    assert (steps < (images[:3].long() - images[3:]).abs().amax((1, 2, 3)).clamp(min=2)).all()


# --- configurations and passes --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIFFUSION)
@pytest.mark.parametrize("spec", [GREY, REAL, CLASSES, DataSpec((4,), None, "vector", 2)], ids=str)
def test_configurations_pass_through_json(name, spec):
    for size in PRESETS[name].sizes:
        config = PRESETS[name].config(size, spec)
        assert from_json(json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize("name", DIFFUSION)
def test_a_saved_model_draws_the_same(name, tmp_path):
    spec = DataSpec((1, 4, 4), 17, "class", 3)
    model = perturbed(create(name, spec, "tiny", sampling=Sampling(steps=3)), 0.1)
    model.save(tmp_path)
    again, y = load(tmp_path), torch.tensor([0, 1, 2])
    assert again.config == model.config and torch.equal(again.null, model.null) and again.null.any()
    assert torch.equal(again.sample(3, y, generator=rng()), model.sample(3, y, generator=rng()))
    assert torch.equal(again.sample(3, generator=rng()), model.sample(3, generator=rng()))


def test_passes_of_three_images():
    """Only the size of the passes differs, so the answers do not."""
    model, y = conditional_model(protocol=exact_ode(steps=8, gate=1.0)), torch.arange(7) % 2
    x_1, x = model.noise(7, rng()), gaussian(7)
    answers = []
    for model.chunk in (3, 256):
        drawn = model.sample(7, generator=rng())
        assert drawn.shape == (7, 3) and drawn.dtype == torch.float32
        answers.append((model.decode(x_1, y), model.encode(x, y), model.log_likelihood(x, y).nats))
    for few, many in zip(*answers, strict=True):
        torch.testing.assert_close(few, many, rtol=0, atol=1e-4)
