"""Annealed importance sampling against closed forms: linear-Gaussian evidence, quadrature, laws of HMC."""

import math
from dataclasses import dataclass

import pytest
import torch
from enumeration import all_images
from torch import Tensor
from torch.nn import functional as F

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import DataSpec
from genzoo.models.vae.vector_vae import VAEConfig
from genzoo.objectives.elbo import importance_weighted_bound
from genzoo.objectives.likelihood.annealing import (
    HMC,
    AnnealingPath,
    annealed_importance_sampling,
    bidirectional_monte_carlo,
    hmc_transition,
    leapfrog,
    sigmoid_temperatures,
)
from genzoo.testing.probe import perturb

FAST = HMC(leapfrog_steps=4, pilot_transitions=100)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal_log_prob(z: Tensor, mean: Tensor, scale: Tensor | float) -> Tensor:
    scale = torch.as_tensor(scale, dtype=z.dtype)
    return (-0.5 * ((z - mean) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


@dataclass
class LinearGaussian:
    """z ~ N(0, I), x | z ~ N(W z, sigma^2 I): evidence and posterior are Gaussian."""

    weights: Tensor
    sigma: float
    z: Tensor
    x: Tensor

    @classmethod
    def simulated(cls, observations=6, latents=3, dims=5, sigma=0.3, dtype=torch.float64, seed=0):
        g = seeded(seed)
        weights = torch.randn(dims, latents, generator=g, dtype=dtype)
        z = torch.randn(observations, latents, generator=g, dtype=dtype)
        noise = torch.randn(observations, dims, generator=g, dtype=dtype)
        return cls(weights, sigma, z, z @ weights.T + sigma * noise)

    def log_prior(self, z):
        return normal_log_prob(z, torch.zeros_like(z), 1.0)

    def log_likelihood(self, z):
        return normal_log_prob(self.x, z @ self.weights.T, self.sigma)

    def sample_prior(self, chains, generator):
        return torch.randn((chains, *self.z.shape), generator=generator, dtype=self.z.dtype)

    def path(self):
        return AnnealingPath.from_prior(self.log_prior, self.log_likelihood, self.sample_prior)

    def encoder_path(self, blur=1.5):
        """From a diagonal Gaussian around the posterior mean, too wide by `blur` and without correlations."""
        precision = torch.eye(self.z.shape[1]).to(self.z) + self.weights.T @ self.weights / self.sigma**2
        mean = self.x @ self.weights / self.sigma**2 @ precision.inverse()
        scale = blur * precision.inverse().diagonal().sqrt()

        def sample(chains, generator):
            eps = torch.randn((chains, *self.z.shape), generator=generator, dtype=self.z.dtype)
            return mean + scale * eps

        return AnnealingPath.from_encoder(
            self.log_prior, self.log_likelihood, lambda z: normal_log_prob(z, mean, scale), sample
        )

    @property
    def evidence(self):
        x, w = self.x.double(), self.weights.double()
        covariance = w @ w.T + self.sigma**2 * torch.eye(len(w), dtype=torch.float64)
        zero = torch.zeros(len(w), dtype=torch.float64)
        return torch.distributions.MultivariateNormal(zero, covariance).log_prob(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("start", ["prior", "encoder"])
def test_evidence_of_a_linear_gaussian_model(start, dtype):
    model = LinearGaussian.simulated(dtype=dtype)
    path = model.path() if start == "prior" else model.encoder_path()
    answer = annealed_importance_sampling(
        path, chains=256, steps=60, hmc=FAST, chunk=256, generator=seeded(0)
    )
    assert ((answer.nats - model.evidence).abs() <= 3 * answer.stderr).all()
    assert answer.stderr.mean() < 0.25  # importance sampling from the prior is off by many nats here
    assert answer.nats.dtype == torch.float64 and answer.kind is LikelihoodKind.LOWER_BOUND
    assert 0.5 < answer.details["acceptance"] < 0.85


def test_the_encoder_start_is_the_better_one():
    """With 10 steps the weights from q(z|x) vary less than those from the prior."""
    model = LinearGaussian.simulated()
    spread = [
        annealed_importance_sampling(path, chains=64, steps=10, hmc=FAST, chunk=64, generator=seeded(1))
        .log_weights.std(0)
        .mean()
        for path in (model.encoder_path(), model.path())
    ]
    assert spread[0] < 0.3 * spread[1]


def test_bdmc_gap_is_closed_by_more_steps():
    model = LinearGaussian.simulated(observations=16, sigma=0.5)
    gaps = []
    for steps in (16, 64, 256):
        bounds = bidirectional_monte_carlo(
            model.path(), model.z, chains=8, steps=steps, hmc=FAST, chunk=8, generator=seeded(2)
        )
        lower, upper = ((b - model.evidence).mean().item() for b in (bounds.lower, bounds.upper))
        print(f"{steps} steps: BDMC gap {bounds.gap:.3f} +- {bounds.gap_stderr:.3f} nats", lower, upper)
        assert 0.5 < bounds.details["acceptance"] < 0.85
        assert lower < 0.1 and upper > -0.1  # the truth lies between them, up to noise
        assert math.isclose(bounds.gap, upper - lower, rel_tol=1e-9)
        gaps.append(bounds.gap)
    assert gaps[0] > 1.5 * gaps[1] > 2.25 * gaps[2]
    assert gaps[2] < 0.4


def test_reverse_chains_bound_from_above_by_a_closed_form():
    """One step: E[1 / w] = 1 / p(x) over the posterior, so exact posterior draws average to the evidence."""
    model = LinearGaussian.simulated(observations=1, latents=1, dims=1, sigma=3.0)
    variance = 1 / (1 + model.weights.item() ** 2 / 9)
    mean = variance * model.weights.item() * model.x.item() / 9
    draws = mean + variance**0.5 * torch.randn(20_000, 1, 1, generator=seeded(3), dtype=torch.float64)
    inverse = [-model.log_likelihood(draws).exp().reciprocal().mean().log().item()]
    observed = LinearGaussian(model.weights, 3.0, draws[:, 0], model.x.expand(20_000, 1))
    bounds = bidirectional_monte_carlo(observed.path(), draws[:, 0], chains=1, steps=1, generator=seeded(4))
    inverse.append(-(-bounds.upper).logsumexp(0).item() + math.log(20_000))
    assert math.isclose(*inverse, rel_tol=1e-9)
    assert abs(inverse[0] - model.evidence.item()) < 0.05


def test_one_step_is_importance_sampling():
    model = LinearGaussian.simulated()
    for path in (model.path(), model.encoder_path()):
        answer = annealed_importance_sampling(path, chains=32, steps=1, chunk=32, generator=seeded(5))
        z = path.sample_start(32, seeded(5))
        plain = model.log_prior(z) + model.log_likelihood(z) - path.log_start(z)
        torch.testing.assert_close(answer.log_weights, plain)
        torch.testing.assert_close(answer.nats, importance_weighted_bound(plain))


def test_weights_are_unbiased_for_every_image():
    """Few, coarse steps: the mean weight of all 16 binary images is P(x) by quadrature; their sum is 1."""
    images = all_images(DataSpec((1, 2, 2), 2)).flatten(1).double()
    slope = torch.tensor([2.0, -3.0, 1.0, 4.0], dtype=torch.float64)

    def log_likelihood(z):
        logits = z * slope - 0.5
        return F.logsigmoid(torch.where(images.bool(), logits, -logits)).sum(-1)

    def sample(chains, generator):
        return torch.randn((chains, 16, 1), generator=generator, dtype=torch.float64)

    path = AnnealingPath.from_prior(lambda z: normal_log_prob(z, z * 0, 1.0), log_likelihood, sample)
    answer = annealed_importance_sampling(
        path, chains=4000, steps=4, hmc=FAST, chunk=2000, generator=seeded(6)
    )
    grid = torch.linspace(-9, 9, 2001, dtype=torch.float64).view(-1, 1, 1).expand(-1, 16, 1)
    exact = (log_likelihood(grid) + normal_log_prob(grid, grid * 0, 1.0)).exp().sum(0) * (18 / 2000)
    assert abs(exact.sum().item() - 1) < 1e-6
    weights = answer.log_weights.exp()
    assert ((weights.mean(0) - exact).abs() <= 4 * weights.std(0) / 4000**0.5).all()
    assert abs(weights.mean(0).sum().item() - 1) < 0.02


def test_audit_of_a_vae():
    """A VAE's public methods make a path: AIS meets P(x) by quadrature, its own IWAE bound lies below."""
    spec = DataSpec((1, 2, 2), 2)
    torch.manual_seed(0)
    model = perturb(VAEConfig(latent_dim=1, channels=(8,), blocks=1).build(spec)).double().eval()
    images = all_images(spec)
    q = model.encode(images)
    mean, scale = q.mean.detach(), q.log_scale.detach().exp()

    def log_prior(z):
        return normal_log_prob(z, torch.zeros_like(z), 1.0)

    def log_likelihood(z):
        params = model.decode(z.flatten(0, 1))
        x = images.repeat(len(z), 1, 1, 1)
        return model.distribution.log_prob(params, x).flatten(1).sum(1).view(z.shape[:2])

    def sample_q(chains, generator):
        return mean + scale * torch.randn((chains, *mean.shape), generator=generator, dtype=mean.dtype)

    path = AnnealingPath.from_encoder(
        log_prior, log_likelihood, lambda z: normal_log_prob(z, mean, scale), sample_q
    )
    answer = annealed_importance_sampling(
        path, chains=200, steps=20, hmc=FAST, chunk=200, generator=seeded(15)
    )
    grid = torch.linspace(-9, 9, 601, dtype=torch.float64).view(-1, 1, 1).expand(-1, 16, 1)
    with torch.no_grad():
        exact = (log_likelihood(grid) + log_prior(grid)).logsumexp(0) + math.log(18 / 600)
    assert abs(exact.exp().sum().item() - 1) < 1e-5
    assert ((answer.nats - exact).abs() <= 4 * answer.stderr + 1e-6).all()
    model.samples = 2
    bound = torch.stack([model.log_likelihood(images, generator=seeded(s)).nats for s in range(20)]).mean()
    assert bound < exact.mean() and (answer.nats - exact).abs().mean() < exact.mean() - bound


def correlated(z):
    """N((1, -2), [[1, 0.6], [0.6, 0.5]]), not normalised."""
    precision = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=z.dtype).inverse()
    d = z - torch.tensor([1.0, -2.0], dtype=z.dtype)
    return -0.5 * (d @ precision * d).sum(-1)


def test_hmc_leaves_a_gaussian_invariant():
    """40,000 exact draws, five coarse transitions: mean, covariance and fourth moment stay."""
    normal = torch.randn(40_000, 1, 2, generator=seeded(7), dtype=torch.float64)
    cholesky = torch.linalg.cholesky(torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64))
    z = torch.tensor([1.0, -2.0]).double() + normal @ cholesky.T
    g, start, accepted = seeded(8), z, []
    for _ in range(5):
        z, probability = hmc_transition(correlated, z, torch.full(z.shape[:2], 0.6), 4, g)
        accepted.append(probability.mean().item())
    assert 0.4 < sum(accepted) / 5 < 0.7  # without the correction this step size is far off
    assert torch.corrcoef(torch.stack([start[:, 0, 0], z[:, 0, 0]]))[0, 1] < 0.5  # and it does move
    torch.testing.assert_close(z[:, 0].mean(0), torch.tensor([1.0, -2.0]).double(), rtol=0, atol=0.02)
    expected = torch.tensor([[1.0, 0.6], [0.6, 0.5]]).double()
    torch.testing.assert_close(z[:, 0].T.cov(), expected, rtol=0, atol=0.03)
    assert abs(((z[:, 0, 0] - 1) ** 4).mean().item() - 3) < 0.2


def test_leapfrog_is_reversible_and_preserves_volume():
    def log_density(z):
        return -(z**4).sum(-1) - z.sin().prod(-1)

    z, v = torch.randn(2, 3, 4, 2, generator=seeded(9), dtype=torch.float64)
    size = torch.rand(3, 4, generator=seeded(10), dtype=torch.float64) * 0.1
    there = leapfrog(log_density, z, v, size, 12)
    back = leapfrog(log_density, there.z, -there.velocity, size, 12)
    assert (there.z - z).abs().max() > 0.1
    torch.testing.assert_close(back.z, z)
    torch.testing.assert_close(back.velocity, -v)
    torch.testing.assert_close(back.log_density_after, there.log_density_before)

    step, size, at = 1e-5, torch.full((1, 1), 0.1, dtype=torch.float64), torch.cat([z[0, 0], v[0, 0]])

    def mapped(point):
        end = leapfrog(log_density, point[:2].view(1, 1, 2), point[2:].view(1, 1, 2), size, 12)
        return torch.cat([end.z[0, 0], end.velocity[0, 0]])

    columns = [
        (mapped(at + step * e) - mapped(at - step * e)) / (2 * step)
        for e in torch.eye(4, dtype=torch.float64)
    ]
    assert abs(torch.linalg.det(torch.stack(columns)).item() - 1) < 1e-6


def test_energy_error_is_of_second_order():
    """Over a fixed time, half the step size leaves a quarter of the energy error."""
    z, v = torch.randn(2, 200, 1, 2, generator=seeded(11), dtype=torch.float64)
    errors = []
    for steps in (16, 32, 64):
        end = leapfrog(correlated, z, v, torch.full((200, 1), 1.6 / steps).double(), steps)
        kinetic = 0.5 * (v.square().sum(-1) - end.velocity.square().sum(-1))
        errors.append((end.log_density_after - end.log_density_before + kinetic).abs().mean().item())
    assert 3.6 < errors[0] / errors[1] < 4.6 and 3.8 < errors[1] / errors[2] < 4.2


def test_a_trajectory_into_nan_is_rejected():
    z = torch.zeros(4, 1, 1, dtype=torch.float64)
    size = torch.ones(4, 1, dtype=torch.float64)
    moved, probability = hmc_transition(lambda z: (0.01 - z.abs()).sum(-1).sqrt(), z, size, 1, seeded(12))
    assert torch.equal(moved, z) and (probability == 0).all()


def test_step_sizes_are_tuned_per_observation():
    """Posteriors a hundred times apart in width both end up near the wanted acceptance."""
    scale = torch.tensor([[0.01], [1.0]], dtype=torch.float64)

    def sample(chains, generator):
        return torch.randn((chains, 2, 1), generator=generator, dtype=torch.float64)

    path = AnnealingPath.from_prior(
        lambda z: normal_log_prob(z, z * 0, 1.0), lambda z: normal_log_prob(z * 0, z, scale), sample
    )
    answer = annealed_importance_sampling(
        path, chains=1000, steps=150, hmc=FAST, chunk=1000, generator=seeded(13)
    )
    exact = normal_log_prob(torch.zeros(2, 1).double(), torch.zeros(2, 1).double(), (1 + scale**2).sqrt())
    assert ((answer.nats - exact).abs() <= 3 * answer.stderr + 1e-3).all()
    assert 0.5 < answer.details["acceptance"] < 0.85


@pytest.mark.slow
def test_step_sizes_reach_the_wanted_acceptance():
    """In many dimensions, where acceptance falls smoothly with the step size."""

    def sample(chains, generator):
        return torch.randn((chains, 2, 80), generator=generator, dtype=torch.float64)

    path = AnnealingPath.from_prior(
        lambda z: normal_log_prob(z, z * 0, 1.0), lambda z: normal_log_prob(z * 0, z, 0.5), sample
    )
    for start in (0.02, 2.0):
        hmc = HMC(step_size=start, pilot_transitions=300)
        answer = annealed_importance_sampling(path, chains=16, steps=60, hmc=hmc, generator=seeded(14))
        assert abs(answer.details["acceptance"] - 0.65) < 0.08


def test_chunks_and_seeds():
    model = LinearGaussian.simulated(observations=2)
    calls = []

    def watched(z):
        calls.append(len(z))
        return model.log_likelihood(z)

    path = AnnealingPath.from_prior(model.log_prior, watched, model.sample_prior)
    hmc = HMC(pilot_chains=2, pilot_transitions=3)
    before = torch.get_rng_state()
    one, two, other = (
        annealed_importance_sampling(path, chains=7, steps=5, hmc=hmc, chunk=3, generator=seeded(s))
        for s in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert one.log_weights.shape == (7, 2) and max(calls) == 3
    assert torch.equal(one.nats, two.nats) and not torch.equal(one.nats, other.nats)
    spec = DataSpec((5, 1, 1), None)
    assert torch.equal(one.as_log_likelihood(spec).bits_per_dim, -one.nats / (5 * math.log(2)))


def test_temperatures_rise_from_0_to_1_symmetrically():
    t = sigmoid_temperatures(11)
    assert t[0] == 0 and t[-1] == 1 and (t.diff() > 0).all()
    torch.testing.assert_close(t + t.flip(0), torch.ones(12, dtype=torch.float64))
    # equation of Wu et al. 2017 written out: (s(d(2i/T - 1)) - s(-d)) / (s(d) - s(-d)), d = 4
    s = [1 / (1 + math.exp(-4 * (2 * i / 11 - 1))) for i in range(12)]
    torch.testing.assert_close(t, torch.tensor([(v - s[0]) / (s[-1] - s[0]) for v in s]).double())


def test_mistakes_are_named():
    model = LinearGaussian.simulated()
    with pytest.raises(GenzooError, match="chains >= 1"):
        annealed_importance_sampling(model.path(), chains=0)
    with pytest.raises(GenzooError, match="steps >= 1"):
        bidirectional_monte_carlo(model.path(), model.z, steps=0)
    with pytest.raises(GenzooError, match="leapfrog_steps >= 1"):
        HMC(leapfrog_steps=0)
