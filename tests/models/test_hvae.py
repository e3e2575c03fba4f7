"""The hierarchical VAE: its loss written out in float64, its bound against quadrature, groups that are used."""

import math
from dataclasses import replace

import pytest
import torch
from enumeration import all_images
from torch import distributions as td
from torch.nn import functional as F

from genzoo import load_data
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import Batch, DataSpec
from genzoo.models.vae.hierarchical_vae import HVAEConfig
from genzoo.objectives.elbo import ConstantBeta, FreeBits, WarmUp
from genzoo.testing.probe import perturb

TINY = HVAEConfig(2, 0, channels=(8, 12), latent_channels=(1, 2), groups=(1, 2), head=6, kl=ConstantBeta())
TWO_LATENTS = HVAEConfig(1, 0, channels=(8,), latent_channels=(1,), groups=(1,), head=6, kl=ConstantBeta())
BINARY = DataSpec((1, 2, 2), 2)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def built(config, spec, heads=1.0):
    """The same weights for equal shapes, no layer at zero.

    With small `heads` posteriors are about as wide as their priors: narrow ones make importance weights
    heavy-tailed.
    """
    torch.manual_seed(0)
    model = perturb(config.build(spec))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "head." in name:
                parameter.mul_(heads)
    return model


def random_images(spec, n, seed=0):
    return torch.randint(spec.levels, (n, *spec.shape), generator=seeded(seed)).to(torch.uint8)


class Reference:
    """The model from its state dict and the papers' formulas: functional calls and torch.distributions only."""

    def __init__(self, model):
        self.w, self.residual = model.state_dict(), model.config.residual_posterior

    def conv(self, name, x, stride=1):
        weight = self.w[name + ".weight"]
        return F.conv2d(x, weight, self.w[name + ".bias"], stride, 1 if weight.shape[-1] > 1 else 0)

    def block(self, name, x, cond):
        y = self.conv(name + ".first", x.clamp(min=0))
        if cond is not None:
            y = y + (cond @ self.w[name + ".cond.weight"].T)[:, :, None, None]
        return x + self.conv(name + ".last", y.clamp(min=0))

    def normal(self, name, x):
        mean, raw = self.conv(name, x.clamp(min=0)).chunk(2, 1)
        return mean, 6 * torch.tanh(raw / 6)

    def linear(self, name, x):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def vector(self, coarsest, cond):
        """Posterior and prior of the vector above the groups."""
        h = coarsest.clamp(min=0).flatten(1)
        mean, raw = self.linear("top.head", h if cond is None else torch.cat([h, cond], 1)).chunk(2, 1)
        q = td.Normal(mean, (6 * torch.tanh(raw / 6)).exp())
        if cond is None:
            return q, td.Normal(torch.zeros_like(mean), torch.ones_like(mean))
        mean, raw = self.linear("prior.head", cond).chunk(2, 1)
        return q, td.Normal(mean, (6 * torch.tanh(raw / 6)).exp())

    def encode(self, x, cond, levels):
        maps = []
        for n in range(levels):
            x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
            x = self.block(f"encoder.blocks.{n}.0", self.conv(f"encoder.down.{n}", x, 2), cond)
            maps.append(x)
        return maps

    def terms(self, images, cond, groups, generator):
        """Bernoulli reconstruction `[b]` and KL `[b, G]`; `groups` per level, the finest first."""
        maps = self.encode(images.double() * 2 - 1, cond, len(groups))
        q, p = self.vector(maps[-1], cond)
        kls = [td.kl_divergence(q, p).sum(1)]
        z = q.mean + q.stddev * torch.randn(q.mean.shape, generator=generator, dtype=torch.float64)
        state = self.linear("decoder.start", z).view(maps[-1].shape)
        for level in reversed(range(len(groups))):
            for g in range(groups[level]):
                name = f"decoder.blocks.{level}.{g}"
                state = self.block(name + ".prior", state, cond)
                mean_p, log_p = self.normal(name + ".prior_head", state)
                merged = self.conv(name + ".merge", torch.cat([state, maps[level]], 1))
                posterior = self.block(name + ".posterior", merged, cond)
                mean, log = self.normal(name + ".posterior_head", posterior)
                mean_q, log_q = (mean_p + mean, log_p + log) if self.residual else (mean, log)
                q, p = td.Normal(mean_q, log_q.exp()), td.Normal(mean_p, log_p.exp())
                kls.append(td.kl_divergence(q, p).sum((1, 2, 3)))
                z = mean_q + log_q.exp() * torch.randn(mean_q.shape, generator=generator, dtype=torch.float64)
                state = self.block(name + ".after", state + self.conv(name + ".inject", z), cond)
            height, width = (maps[level - 1] if level else images).shape[2:]
            up = self.conv(f"decoder.up.{level}", state)
            b, c, h, w = up.shape  # depth to space, written out
            up = up.view(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)
            state = up[:, :, :height, :width]
        logits = self.conv("decoder.last", state.clamp(min=0))
        log_prob = td.Bernoulli(logits=logits).log_prob(images.double())
        return -log_prob.sum((1, 2, 3)), torch.stack(kls, 1)


@pytest.mark.parametrize("residual", [True, False], ids=["residual", "absolute"])
@pytest.mark.parametrize("cond", [None, "class"])
def test_loss_equals_an_independent_reference(residual, cond):
    """float64, an odd size, a vector and three groups on two levels, the same noise."""
    spec = DataSpec((1, 7, 5), 2, cond, 3 if cond else 0)
    model = built(replace(TINY, residual_posterior=residual), spec).double()
    images = random_images(spec, 4)
    classes = torch.tensor([0, 2, 1, 2]) if cond else None
    embedded = model.condition.embed.weight[classes] if cond else None
    ours = model.loss(Batch(images, classes), generator=seeded(3))
    reconstruction, kl = Reference(model).terms(images, embedded, (1, 2), seeded(3))
    torch.testing.assert_close(ours.total, reconstruction + kl.sum(1), rtol=1e-9, atol=1e-9)
    for g in range(4):
        torch.testing.assert_close(ours.parts[f"kl_{g + 1}"], kl[:, g], rtol=1e-9, atol=1e-9)
    assert (kl > 1e-3).all()


def exact_log_probs(model, images):
    """log P of binary 2x2 images by quadrature over the two latents' standard normal noise, `[n]`.

    The first latent's prior is standard normal, so it is its own noise.
    """
    nodes = torch.linspace(-7, 7, 141, dtype=torch.float64)
    weights = torch.exp(-0.5 * nodes**2) / math.sqrt(2 * math.pi) * 0.1
    first, second = (g.reshape(-1, 1) for g in torch.meshgrid(nodes, nodes, indexing="ij"))
    with torch.no_grad():
        maps, groups = model.decoder(
            first.float(), None, None, noise=lambda like: second.view_as(like).to(like)
        )
        assert len(groups) == 1
        log_p = torch.stack([model._log_prob(maps, x.expand(len(maps), -1, -1, -1)) for x in images])
    return (log_p.double() + torch.outer(weights, weights).log().flatten()).logsumexp(1)


@pytest.mark.parametrize("residual", [True, False], ids=["residual", "absolute"])
def test_the_bound_approaches_the_truth_by_quadrature_from_below(residual):
    model = built(replace(TWO_LATENTS, residual_posterior=residual), BINARY, heads=0.2)
    images = all_images(BINARY)
    exact = exact_log_probs(model, images)
    assert abs(exact.exp().sum().item() - 1) < 1e-5
    assert exact.max() - exact.min() > 0.3
    bounds = []
    for samples in (1, 8, 3000):
        model.samples = samples
        runs = 1 if samples == 3000 else 40
        lls = [model.log_likelihood(images, generator=seeded(s)) for s in range(runs)]
        bounds.append(torch.stack([ll.nats for ll in lls]))
    noise = bounds[0].std(0) / len(bounds[0]) ** 0.5
    elbo, iwae, tight = (bound.mean(0) for bound in bounds)
    assert elbo.mean() < iwae.mean() < exact.mean() and (elbo < exact + 4 * noise).all()
    assert ((tight - exact).abs() <= 4 * lls[-1].stderr + 1e-4).all()
    assert lls[-1].kind is LikelihoodKind.LOWER_BOUND


@pytest.mark.parametrize(
    ("spec", "output"),
    [(BINARY, "auto"), (DataSpec((1, 2, 2), 4), "categorical"), (DataSpec((1, 2, 2), 4), "logistics"),
     (DataSpec((1, 2, 2), 4), "gaussian"), (DataSpec((3, 1, 2), 2), "auto")],
    ids=str,
)  # fmt: skip
def test_bounds_of_all_images_sum_to_at_most_one(spec, output):
    """A single draw leaves the sum below one, more bring it near."""
    model = built(replace(TINY, output=output), spec, heads=0.4)
    images, model.samples = all_images(spec), 1
    few = torch.stack([model.log_likelihood(images, generator=seeded(s)).nats for s in range(8)])
    model.samples = 100
    ll = model.log_likelihood(images, generator=seeded(9))
    p = ll.nats.exp()
    noise = (p * ll.stderr).square().sum().sqrt().item()
    assert few.mean(0).exp().sum() < 0.97 * p.sum()
    assert 0.8 < p.sum() <= 1 + 4 * noise


def test_samples_follow_the_exact_probabilities():
    model = built(TWO_LATENTS, BINARY)
    p = exact_log_probs(model, all_images(BINARY)).exp()
    samples = model.sample(4000, generator=seeded(0)).flatten(1).long()
    counts = torch.bincount(samples @ torch.tensor([8, 4, 2, 1]), minlength=16)
    assert ((counts - 4000 * p) ** 2 / (4000 * p)).sum() < 44.3  # the 1 - 1e-4 quantile at 15 df


def test_an_untrained_model_is_uniform_and_its_posterior_is_its_prior():
    spec = DataSpec((3, 6, 9), 17)
    loss = TINY.build(spec).loss(Batch(random_images(spec, 3)), generator=seeded(0))
    torch.testing.assert_close(loss.total, torch.full((3,), spec.dims * math.log(17)), rtol=1e-5, atol=0)
    assert (loss.parts["kl"] == 0).all()


@pytest.mark.slow
def test_latents_carry_information_on_digits():
    """The bound is far better than at the start, and the KL that is paid for it is that of the groups."""
    data = load_data("digits")
    training = TrainConfig(batch_size=64, learning_rate=8e-3, clip_norm=20.0)
    config = HVAEConfig(4, 8, (16, 24), latent_channels=(2, 4), groups=(1, 1), head=8, training=training)
    torch.manual_seed(0)
    model = config.build(data.spec)
    images, model.samples = data.test.images[:64], 16
    before = model.log_likelihood(images, generator=seeded(0)).nats.mean()
    model.fit(data.train, steps=300, progress=False)
    ll = model.log_likelihood(images, generator=seeded(0))
    kl = torch.tensor(ll.details["kl_per_group"])
    print("KL per group", kl, "nats", ll.nats.mean())
    assert len(kl) == model.groups == 3 and kl.sum() > 1
    assert ll.nats.mean() > before + 60
    assert ll.details["kl"] == pytest.approx(kl.sum().item(), rel=0.1)  # sampled and in closed form
    assert ll.details["elbo"] < ll.nats.mean() < ll.details["elbo"] + 5


def test_the_kl_of_groups_adds_up_without_a_class_too():
    """The class is a latent as well: the first of the groups, 0 where all classes explain an image alike."""
    spec = DataSpec((1, 4, 4), 2, "class", 3)
    model = built(TINY, spec)
    model.samples = 400
    details = model.log_likelihood(random_images(spec, 4), generator=seeded(0)).details
    of_class, *groups = details["kl_per_group"]
    assert len(groups) == model.groups and 0.05 < of_class < math.log(3) + 1e-6
    assert of_class + sum(groups) == pytest.approx(details["kl"], rel=0.03)


@pytest.mark.parametrize("kind", ["class", "vector"])
def test_conditioning_is_learned(kind):
    """Class 0 is nearly white below, class 1 above: likelihood and samples tell them apart."""
    spec = DataSpec((1, 4, 4), 2, kind, 2)
    classes = torch.arange(128) % 2
    noise = torch.rand(128, 1, 4, 4, generator=seeded(0)) < 0.1
    half = (torch.arange(4) >= 2).view(1, 1, 4, 1)
    images = (torch.where(classes.view(-1, 1, 1, 1) == 0, half, ~half) ^ noise).to(torch.uint8)

    def encoded(c):
        return c if kind == "class" else F.one_hot(c, 2).float()

    torch.manual_seed(1)
    model = TINY.build(spec)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(80):
        model.loss(Batch(images, encoded(classes)), generator=seeded(step)).total.mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    right, wrong = (
        model.log_likelihood(images[:32], encoded(c[:32]), generator=seeded(0)).nats
        for c in (classes, 1 - classes)
    )
    assert (right > wrong).float().mean() > 0.9
    drawn = model.sample(200, encoded(torch.arange(200) % 2), generator=seeded(0)).float()
    assert drawn[::2, :, 2:].mean() > 0.8 and drawn[1::2, :, 2:].mean() < 0.2
    if kind == "class":
        mixed = model.log_likelihood(images[:32], generator=seeded(0))
        assert ((mixed.nats - (right - math.log(2))).abs() < 1).all()  # the wrong class adds next to nothing


def test_kl_weighting_acts_on_each_group_and_follows_progress():
    spec = DataSpec((1, 6, 6), 2)
    images = Batch(random_images(spec, 5))

    def loss(kl, progress=1.0, train=True):
        model = built(replace(TINY, kl=kl), spec).train(train)
        model.progress = progress
        return model.loss(images, generator=seeded(0))

    plain = loss(ConstantBeta())
    kl = torch.stack([plain.parts[f"kl_{g}"] for g in (1, 2, 3, 4)], 1)
    floor = kl.mean(0).sort().values[1].item()  # between the groups: one is below it
    free = loss(FreeBits(floor * 1.001))
    expected = sum(max(floor * 1.001, value) for value in kl.mean(0).tolist())
    torch.testing.assert_close(free.total - free.parts["reconstruction"], torch.full((5,), expected))
    warm = loss(WarmUp(fraction=0.5), progress=0.25)
    torch.testing.assert_close(warm.total - warm.parts["reconstruction"], 0.5 * kl.sum(1))
    evaluated = loss(WarmUp(fraction=0.5), progress=0.25, train=False)
    torch.testing.assert_close(evaluated.total, plain.total)


def test_likelihood_is_chunked():
    model = built(TINY, DataSpec((1, 5, 5), 2))
    images = random_images(model.spec, 5)
    model.samples, model.chunk, rows = 10, 8, []
    model.decoder.last.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    ll = model.log_likelihood(images, generator=seeded(0))
    assert max(rows) <= 8 and sum(rows) == 50
    assert ll.nats.dtype == torch.float64 and (ll.stderr > 0).all() and ll.details["K"] == 10
    rows.clear()
    assert model.sample(20, generator=seeded(0)).shape == (20, 1, 5, 5) and rows == [8, 8, 4]
    assert model.log_likelihood(images[:0]).nats.shape == (0,)


def test_reconstruction_from_some_of_the_groups():
    spec = DataSpec((1, 6, 6), 4)
    model = built(TINY, spec)
    one, other = (random_images(spec, 8, seed) for seed in (0, 1))

    def shown(images, informed):
        return model.reconstruct(images, informed=informed, generator=seeded(0))

    assert shown(one, None).dtype == torch.uint8 and shown(one, None).max() <= 3
    assert torch.equal(shown(one, 0), shown(other, 0))  # the prior alone knows nothing of the image
    assert not torch.equal(shown(one, 4), shown(other, 4)) and torch.equal(shown(one, 4), shown(one, None))
    assert not torch.equal(shown(one, 1), shown(one, 4))


@pytest.mark.parametrize(
    ("shape", "sizes"), [((1, 2, 2), 1), ((1, 4, 3), 1), ((1, 8, 8), 2), ((3, 28, 28), 3), ((1, 1, 64), 3)]
)
def test_resolutions_follow_the_image(shape, sizes):
    """As many as there are halvings, the coarse ones of the recipe kept."""
    config, spec = HVAEConfig(), DataSpec(shape)
    levels = config.levels(spec)
    assert [level.width for level in levels] == list(config.channels[-sizes:])
    with torch.device("meta"):
        assert config.build(spec).groups == 1 + sum(config.groups[-sizes:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"top": 0}, "top of HVAEConfig must be a whole number from 1"), ({"groups": (1,)}, "equally long"),
     ({"channels": (), "latent_channels": (), "groups": ()}, "equally long"),
     ({"latent_channels": (1, 0)}, "latent_channels of HVAEConfig must be a list whose every value")],
)  # fmt: skip
def test_mistakes_are_named(changes, message):
    with pytest.raises(GenzooError, match=message):
        replace(TINY, **changes).build(BINARY)
    with pytest.raises(GenzooError, match="real-valued"):
        TINY.build(DataSpec((2,), None))
