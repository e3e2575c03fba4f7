"""log P(x) of class-conditional ODE models: linear flows whose classes are Gaussians with dense covariances."""

import math

import pytest
import torch

from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import DataSpec
from genzoo.objectives.denoising.paths import Linear, Prediction, append_dims
from genzoo.objectives.likelihood.diffusion_bound import BoundProtocol
from genzoo.objectives.likelihood.divergence import ExactDivergence, ExactIfSmall, Hutchinson
from genzoo.objectives.likelihood.ode import OdeProtocol, RungeKutta4
from genzoo.objectives.likelihood.protocol import Protocol, measured

CLASSES, F64 = 5, torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def covariances(dims, count, seed=0):
    """With a wide spectrum in bases of their own, where Rademacher directions are at their noisiest."""
    bases = torch.linalg.qr(torch.randn(count, dims, dims, generator=seeded(seed), dtype=F64))[0]
    variances = torch.exp(torch.linspace(-3, 1, dims, dtype=F64))
    return (bases * variances) @ bases.mT


class LinearFlow:
    """Classes N(mean_y, covariance_y): a velocity linear in x_t, and log p(x) in closed form."""

    chunk, device, path = 64, torch.device("cpu"), Linear()

    def __init__(self, means, covariances):
        self.means, self.covariances = means, covariances.expand(CLASSES, -1, -1)
        self.variances, self.bases = torch.linalg.eigh(self.covariances)
        self.spec = DataSpec((means.shape[1],), None, "class", CLASSES)

    def condition(self, cond, n):
        return cond

    def denoiser(self, y):
        variances, bases, mean = self.variances[y], self.bases[y], self.means[y]

        def denoise(x_t, t):
            c = self.path.at(t)
            alpha, sigma = append_dims(c.alpha, x_t), append_dims(c.sigma, x_t)
            within = torch.einsum("bij,bi->bj", bases, x_t.double() - alpha * mean)
            within = within / (alpha**2 * variances + sigma**2)
            x, eps = (torch.einsum("bij,bj->bi", bases, part * within) for part in (alpha * variances, sigma))
            return Prediction(mean + x, eps)

        return denoise

    def each(self, x):
        """log p(x | y) `[classes, n]`."""
        pairs = zip(self.means, self.covariances, strict=True)
        return torch.stack([torch.distributions.MultivariateNormal(m, c).log_prob(x) for m, c in pairs])

    def truth(self, x):
        return self.each(x).logsumexp(0) - math.log(CLASSES)

    def draw(self, n):
        y = torch.arange(n) % CLASSES
        noise = torch.randn(n, self.spec.dims, 1, generator=seeded(7), dtype=F64)
        return self.means[y] + (torch.linalg.cholesky(self.covariances[y]) @ noise)[..., 0]


def flows(dims):
    still = torch.zeros(CLASSES, dims, dtype=F64)
    return {
        "the same for all classes": LinearFlow(still, covariances(dims, 1)),
        "of near means": LinearFlow(
            0.05 * torch.randn(still.shape, generator=seeded(3), dtype=F64), covariances(dims, 1)
        ),
        "of own covariances": LinearFlow(still, covariances(dims, CLASSES)),
    }


def protocol(divergence):
    return OdeProtocol(solver=RungeKutta4(8), divergence=divergence, gate_bits=1.0)


NAMES = [*list(flows(2))[:2], pytest.param(list(flows(2))[2], marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dims", [64, pytest.param(784, marks=pytest.mark.slow)])
def test_noisy_figures_of_classes_do_not_inflate_their_sum(name, dims):
    flow = flows(dims)[name]
    x, y = flow.draw(40), torch.arange(40) % CLASSES
    error = measured(flow, protocol(Hutchinson()), x, None, seeded(1)).nats - flow.truth(x)
    of_class = (
        measured(flow, protocol(Hutchinson()), x, y, seeded(2)).nats - flow.each(x)[y, torch.arange(40)]
    )
    assert of_class.std() > 2  # nats of noise; a plain log-mean-exp would be lifted by more
    assert abs(error.mean()) < 3 * error.std() / len(x) ** 0.5
    if (
        name == "the same for all classes"
    ):  # equal shares, so the figure is the mean of five with noise of their own
        assert error.std() < 0.7 * of_class.std()


def test_exact_figures_are_summed_as_they_are():
    flow = flows(6)["of near means"]
    x = flow.draw(10)
    for divergence in (ExactDivergence(), ExactIfSmall(most_dims=6)):
        nats = measured(flow, protocol(divergence), x, None, seeded(1)).nats
        torch.testing.assert_close(nats, flow.truth(x), atol=2e-3, rtol=0)


class Signed(Protocol):
    """Figures of two classes, true ones of -1 and -2 nats, whose noise has opposite signs: it does not cancel."""

    kind = LikelihoodKind.ESTIMATE
    true = torch.tensor([-1.0, -2.0], dtype=F64)

    def __init__(self, exponentiable):
        self.may = exponentiable

    def exponentiable(self, dims):
        return self.may

    def measure(self, denoise, path, images, spec, generator=None):
        y = denoise(None, None)
        noise = 2 * torch.randn(len(images), generator=generator, dtype=F64)
        return LogLikelihood(self.true[y] + torch.where(y == 0, noise, -noise), self.kind, spec)


class TwoClasses:
    spec, path, chunk, device = DataSpec((1,), None, "class", 2), Linear(), 512, torch.device("cpu")

    def condition(self, cond, n):
        return cond

    def denoiser(self, y):
        return lambda x_t, t: y


@pytest.mark.parametrize("exponentiable", [True, False])
def test_noise_that_does_not_cancel_is_kept_out_of_the_exponent(exponentiable):
    images, truth = torch.zeros(4000, 1), Signed.true.logsumexp(0).item() - math.log(2)
    nats = measured(TwoClasses(), Signed(exponentiable), images, None, seeded()).nats
    stderr = nats.std().item() / len(nats) ** 0.5
    inflated = nats.mean().item() > truth + 5 * stderr
    assert inflated == exponentiable  # the plain log-mean-exp is for figures without such noise
    assert nats.mean().item() > truth - math.log(2)


def test_which_figures_may_be_averaged_in_probability():
    assert protocol(ExactDivergence()).exponentiable(784)
    assert protocol(ExactIfSmall(most_dims=6)).exponentiable(6)
    assert not protocol(ExactIfSmall(most_dims=6)).exponentiable(7)
    assert not protocol(Hutchinson(100)).exponentiable(2) and not BoundProtocol().exponentiable(2)
