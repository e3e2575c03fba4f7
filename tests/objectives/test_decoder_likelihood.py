"""The likelihood of a generator plus noise: a linear generator's is known."""

import math

import pytest
import torch

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import DataSpec
from genzoo.models.gan.generator_model import GANConfig
from genzoo.nn.gan_nets import ConvGANNetworks
from genzoo.objectives.likelihood.annealing import HMC
from genzoo.objectives.likelihood.decoder import Annealing, choose_scale, decoder_likelihood

SCALE = 0.3
QUICK = Annealing(chains=16, steps=60, hmc=HMC(leapfrog_steps=5))


class Linear(torch.nn.Module):
    """G(z) = W z + b."""

    def __init__(self, spec, latent_dim=2):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.spec, self.latent_dim, self.device = spec, latent_dim, torch.device("cpu")
        self.weight = 0.4 * torch.randn(spec.dims, latent_dim, generator=generator)
        self.bias = 0.2 * torch.randn(spec.dims, generator=generator)

    def generate(self, z, cond=None):
        return (z @ self.weight.T + self.bias).view(-1, *self.spec.shape)

    def truth(self, scale=SCALE):
        covariance = self.weight @ self.weight.T + scale**2 * torch.eye(self.spec.dims)
        return torch.distributions.MultivariateNormal(self.bias.double(), covariance.double())


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_linear_generator_has_the_evidence_of_a_gaussian():
    model = Linear(DataSpec((5,), None))
    x = model.generate(torch.randn(24, 2, generator=rng(1))) + SCALE * torch.randn(24, 5, generator=rng(2))
    ll = decoder_likelihood(model, x, SCALE, annealing=QUICK, generator=rng(3))
    error = (ll.nats - model.truth().log_prob(x.double())).mean()
    assert abs(error) < 3 * ll.stderr.square().sum().sqrt() / len(x) + 1e-3
    assert ll.kind is LikelihoodKind.LOWER_BOUND and ll.details["scale"] == SCALE
    assert -0.05 <= ll.details["bdmc_gap"] < 0.5


def test_fine_levels_have_the_probability_of_their_bins():
    """With 4,096 levels the mass of a bin is its density times its width."""
    levels, model = 4096, Linear(DataSpec((1, 1, 3), levels=4096))
    model.weight.mul_(0.3)
    x = torch.randint(1500, 2500, (16, 1, 1, 3), generator=rng(4))
    ll = decoder_likelihood(model, x, SCALE, annealing=QUICK, simulated=0, generator=rng(5))
    centres = ((2 * x.double() + 1) / levels - 1).flatten(1)
    truth = model.truth().log_prob(centres) + 3 * math.log(2 / levels)
    assert abs((ll.nats - truth).mean()) < 3 * ll.stderr.square().sum().sqrt() / 16 + 1e-2


def test_few_levels_by_hand():
    """Of a generator that draws the bins' centres whatever z is: the normal's mass within 1/3 of levels 1 and 2."""
    model = Linear(DataSpec((1, 1, 2), levels=4))
    model.weight.zero_()
    model.bias = torch.tensor([-0.25, 0.25])  # the centres of the inner two bins of [-1, 1]
    x = torch.tensor([1, 2]).view(1, 1, 1, 2)
    ll = decoder_likelihood(model, x, SCALE, annealing=QUICK, simulated=0, generator=rng(5))
    assert ll.nats.item() == pytest.approx(2 * math.log(math.erf(1 / 3 / SCALE / math.sqrt(2))), abs=1e-5)


@pytest.mark.slow
def test_the_scale_that_made_the_images_is_chosen():
    model = Linear(DataSpec((12,), None))
    x = model.generate(torch.randn(40, 2, generator=rng(6))) + SCALE * torch.randn(40, 12, generator=rng(7))
    scales = (0.1, 0.3, 0.9)
    assert choose_scale(model, x, scales=scales, annealing=QUICK, generator=rng(8)) == 0.3


@pytest.mark.parametrize("cond", [None, "class"])
def test_a_gan_can_be_asked(cond):
    spec = DataSpec((1, 4, 4), levels=17, cond=cond, cond_size=3 if cond else 0)
    model = GANConfig(latent_dim=4, networks=ConvGANNetworks((8,), 1)).build(spec)
    images, labels = model.sample(3, generator=rng()), torch.arange(3) if cond else None
    few = Annealing(chains=2, steps=5, hmc=HMC(leapfrog_steps=2, pilot_transitions=4))
    ll = decoder_likelihood(model, images, 0.2, labels, annealing=few, simulated=2, generator=rng())
    assert ll.nats.shape == (3,) and ll.nats.isfinite().all()
    assert math.isfinite(ll.details["bdmc_gap"])
    with pytest.raises(GenzooError, match="must be positive"):
        decoder_likelihood(model, images, 0.0, labels)
