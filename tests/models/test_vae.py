"""The VAE: closed forms (probabilistic PCA, quadrature, enumeration) and a reference written out in numpy."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from enumeration import all_images, perturbed
from scipy import stats

from genzoo import create, load_data
from genzoo.core.config import TrainConfig
from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec
from genzoo.models.vae.vector_vae import VAEConfig
from genzoo.nn.latent_paths import interpolate_spherically
from genzoo.objectives.elbo import ConstantBeta, FreeBits, WarmUp

TINY = VAEConfig(latent_dim=2, channels=(8, 8), blocks=1, prior_components=0)
BINARY = DataSpec((1, 2, 2), 2)
FOUR = DataSpec((1, 2, 2), 4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- an independent reference ----------------------------------------------------------------------------------


def conv(x, weight, bias, stride=1):
    """Cross-correlation with padding 1: `[b, c, h, w]`, written out with windows."""
    k = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None]


def relu(x):
    return np.maximum(x, 0)


def block(x, cond, p, name):
    y = conv(relu(x), p[f"{name}.first.weight"], p[f"{name}.first.bias"])
    y = y + (cond @ p[f"{name}.cond.weight"].T)[:, :, None, None]
    return x + conv(relu(y), p[f"{name}.last.weight"], p[f"{name}.last.bias"])


def soft_bound(log_scale):
    return 6 * np.tanh(log_scale / 6)


def reference_terms(model, images, classes, eps):
    """log P(x|z), closed KL and log q(z|x) - log p(z), in float64 from the weights alone; eps `[b, d]`."""
    p = {k: v.numpy() for k, v in model.double().state_dict().items()}
    cond = p["condition.embed.weight"][classes]
    x = 2 * images.astype(np.float64) - 1  # two levels on [-1, 1]
    h = np.pad(x, ((0, 0), (0, 0), (0, x.shape[2] % 2), (0, x.shape[3] % 2)))
    for n in range(2):
        h = np.pad(h, ((0, 0), (0, 0), (0, h.shape[2] % 2), (0, h.shape[3] % 2)))
        h = conv(h, p[f"encoder.body.down.{n}.weight"], p[f"encoder.body.down.{n}.bias"], stride=2)
        h = block(h, cond, p, f"encoder.body.blocks.{n}.0")
    h = np.concatenate([h.reshape(len(h), -1), cond], 1)
    m_q, s_q = np.split(h @ p["encoder.head.weight"].T + p["encoder.head.bias"], 2, 1)
    m_p, s_p = np.split(cond @ p["prior.head.weight"].T + p["prior.head.bias"], 2, 1)
    s_q, s_p = np.exp(soft_bound(s_q)), np.exp(soft_bound(s_p))
    z = m_q + s_q * eps
    h = np.concatenate([z, cond], 1) @ p["decoder.first.weight"].T + p["decoder.first.bias"]
    h = h.reshape(len(h), *model.decoder.map)
    for n, (height, width) in ((1, (3, 3)), (0, x.shape[2:])):
        h = block(h, cond, p, f"decoder.body.blocks.{n}.0")
        h = conv(h, p[f"decoder.body.up.{n}.weight"], p[f"decoder.body.up.{n}.bias"])
        b, c, rows, columns = h.shape
        h = h.reshape(b, c // 4, 2, 2, rows, columns).transpose(0, 1, 4, 2, 5, 3)
        h = h.reshape(b, c // 4, 2 * rows, 2 * columns)[:, :, :height, :width]
    probability = 1 / (1 + np.exp(-h))
    log_p = np.log(np.where(images == 1, probability, 1 - probability)).sum((1, 2, 3))
    kl = (np.log(s_p / s_q) + (s_q**2 + (m_q - m_p) ** 2) / (2 * s_p**2) - 0.5).sum(1)
    log_ratio = (stats.norm.logpdf(z, m_q, s_q) - stats.norm.logpdf(z, m_p, s_p)).sum(1)
    return log_p, kl, log_ratio


def reference_case(**changes):
    spec = DataSpec((1, 5, 6), 2, "class", 3)
    model = perturbed(replace(TINY, **changes).build(spec), 0.1).double()
    images = torch.randint(2, (4, *spec.shape), dtype=torch.uint8, generator=generator(3))
    return model, images, torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize("progress", [1.0, 0.25])
def test_loss_equals_the_reference(progress):
    """Kingma & Welling 2014, equation 3, with the KL warmed up; odd sides, a class, every layer perturbed."""
    model, images, classes = reference_case(kl=WarmUp(fraction=0.5))
    model.progress = progress
    loss = model.loss(Batch(images, classes), generator=generator())
    eps = torch.randn(4, 2, generator=generator(), dtype=torch.float64).numpy()
    log_p, kl, _ = reference_terms(model, images.numpy(), classes.numpy(), eps)
    beta = min(1, progress / 0.5)
    np.testing.assert_allclose(loss.total.detach().numpy(), beta * kl - log_p, rtol=1e-6)
    np.testing.assert_allclose(loss.parts["kl"].detach().numpy(), kl, rtol=1e-6)
    assert (kl > 0.01).all()
    model.eval()  # validation is compared with the weighting of the run's end
    total = model.loss(Batch(images, classes), generator=generator()).total
    np.testing.assert_allclose(total.detach().numpy(), kl - log_p, rtol=1e-6)


def test_importance_weighted_loss_equals_the_reference():
    """Burda et al. 2016, equation 8, with K = 3."""
    model, images, classes = reference_case(importance_samples=3, kl=ConstantBeta())
    loss = model.loss(Batch(images, classes), generator=generator()).total.detach().numpy()
    eps = torch.randn(12, 2, generator=generator(), dtype=torch.float64).numpy()
    weights = 0.0
    for k in range(3):
        terms = reference_terms(model, images.numpy(), classes.numpy(), eps[4 * k : 4 * k + 4])
        weights = weights + np.exp(terms[0] - terms[2]) / 3
    np.testing.assert_allclose(loss, -np.log(weights), rtol=1e-6)


def test_importance_weights_come_late_in_training():
    model, images, classes = reference_case(importance_samples=3, importance_from=0.6, kl=ConstantBeta())
    batch = Batch(images, classes)
    plain = replace(model.config, importance_samples=1).build(model.spec).double()
    plain.load_state_dict(model.state_dict())

    def loss(of, progress, train=True):
        of.train(train).progress = progress
        return of.loss(batch, generator=generator()).total

    assert torch.equal(loss(model, 0.5), loss(plain, 0.5))
    assert torch.equal(loss(model, 0.7), loss(model, 1.0)) and not torch.equal(
        loss(model, 0.7), loss(plain, 0.7)
    )
    assert torch.equal(loss(model, 0.5, train=False), loss(model, 1.0))  # validation losses compare


# --- truth by enumeration and quadrature -----------------------------------------------------------------------

OUTPUTS = ("categorical", "logistics", "gaussian", "sigma", "mse")
PRIORS = {"normal": {}, "mixture": {"prior_components": 3}, "vamp": {"pseudo_inputs": 3}}
ROW = DataSpec((1, 1, 3), 4)
CASES = [(BINARY, output, "normal") for output in ("bernoulli", *OUTPUTS)]
CASES += [(BINARY, output, prior) for output in ("bernoulli", "sigma") for prior in ("mixture", "vamp")]
CASES += [(ROW, output, "normal") for output in OUTPUTS] + [(ROW, "categorical", "vamp")]


@pytest.mark.parametrize(
    ("spec", "output", "prior"), CASES, ids=lambda v: v if isinstance(v, str) else str(v.levels)
)
def test_bounds_of_all_images_sum_to_at_most_one(spec, output, prior):
    """exp(bound) is an unbiased estimate of P, whose sum is 1; exp(mean bound) sums to less."""
    config = replace(TINY, output=output, mse_scale=0.5, **PRIORS[prior])
    model = perturbed(config.build(spec), 0.25)
    with torch.no_grad():  # wider than the prior: a narrow posterior has heavy-tailed importance weights
        model.encoder.head.weight.mul_(0.2)
        model.encoder.head.bias[config.latent_dim :] = 0.5
    images, model.samples = all_images(spec), 256
    nats = torch.stack([model.log_likelihood(images, generator=generator(s)).nats for s in range(6)])
    totals = nats.exp().sum(1)
    assert abs(totals.mean() - 1) < 4 * totals.std() / 6**0.5 + 2e-3
    assert nats.mean(0).exp().sum() <= 1 + 4 * totals.std() / 6**0.5
    model.samples = 1
    elbo = torch.stack([model.log_likelihood(images, generator=generator(s)).nats for s in range(20)]).mean(0)
    assert elbo.exp().sum() < nats.mean(0).exp().sum() + 2e-3


def one_latent(spec, output="auto"):
    """A model whose decoder is anything and whose posterior is a bit off, but about as wide as the prior.

    Where a posterior is narrower than the true one, importance weights have no variance to speak of.
    """
    model = perturbed(replace(TINY, latent_dim=1, output=output).build(spec), 0.4).double()
    with torch.no_grad():
        model.encoder.head.weight.mul_(0.1)
        model.encoder.head.bias.zero_()
    return model


def quadrature(model, images):
    """log P(x) of a model with one latent, from P(x|z) on a grid of z: `[images]`."""
    z, spec = torch.linspace(-9, 9, 721, dtype=torch.float64), model.spec
    log_prior = torch.tensor(stats.norm.logpdf(z.numpy()))
    with torch.no_grad():
        params = model.decode(z[:, None])
        log_p = torch.stack(
            [
                model.distribution.log_prob(params, x.expand(len(z), *spec.shape)).flatten(1).sum(1)
                for x in images
            ]
        )
    return (log_p + log_prior + math.log(18 / 720)).logsumexp(1)


@pytest.mark.parametrize(
    ("spec", "output"), [(BINARY, "bernoulli"), (FOUR, "categorical"), (FOUR, "sigma")], ids=str
)
def test_truth_by_quadrature_lies_above_the_bounds(spec, output):
    model, images = one_latent(spec, output), all_images(spec)
    truth = quadrature(model, images)
    assert truth.exp().sum().item() == pytest.approx(1, abs=1e-6)
    few = slice(None, None, len(images) // 16)
    images, truth, gaps = images[few], truth[few], []
    for model.samples, repeats in ((1, 100), (64, 20)):
        nats = [model.log_likelihood(images, generator=generator(s)).nats for s in range(repeats)]
        nats = torch.stack(nats)
        assert (nats.mean(0) < truth + 4 * nats.std(0) / repeats**0.5).all()
        gaps.append((truth - nats.mean(0)).mean().item())
    assert gaps[0] > 10 * gaps[1] > 0
    model.samples = 2000
    ll = model.log_likelihood(images, generator=generator())
    assert ((ll.nats - truth).abs() < 5 * ll.stderr).all()


def test_samples_follow_the_true_probabilities():
    model = one_latent(BINARY)
    expected = 4000 * quadrature(model, all_images(BINARY)).exp()
    samples = model.sample(4000, generator=generator()).flatten(1).long()
    counts = torch.bincount(samples @ torch.tensor([8, 4, 2, 1]), minlength=16)
    assert ((counts - expected) ** 2 / expected).sum() < stats.chi2.ppf(1 - 1e-4, 15)


def test_imputed_pixels_follow_the_conditional_distribution():
    """P(last pixel | the first three) by quadrature against 4,000 chains."""
    torch.manual_seed(4)  # weights whose conditional is 7 standard errors off where proposals are not weighed
    model = one_latent(BINARY)
    p = quadrature(model, all_images(BINARY)).view(2, 2, 2, 2)[1, 0, 1].softmax(0)[1].item()
    assert 0.05 < p < 0.95
    images = torch.tensor([1, 0, 1, 0], dtype=torch.uint8).view(1, 1, 2, 2).expand(4000, -1, -1, -1)
    missing = torch.tensor([[False, False], [False, True]])
    filled = model.impute(images, missing, sweeps=20, generator=generator())
    assert torch.equal(filled[..., ~missing], images[..., ~missing])
    assert filled[..., 1, 1].double().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / 4000) ** 0.5)


def test_chunks_do_not_change_the_bound():
    model = perturbed(TINY.build(FOUR), 0.3)
    images = all_images(FOUR)[::9]
    whole = model.log_likelihood(images, generator=generator())
    for model.chunk in (7, 130, 10_000):
        part = model.log_likelihood(images, generator=generator(1))
        assert ((whole.nats - part.nats).abs() < 6 * (whole.stderr + part.stderr) + 1e-6).all()
        assert part.details["K"] == 64
    assert len(model.log_likelihood(images[:0]).nats) == 0


# --- learning --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_collapse_on_digits():
    data = load_data("digits")
    training = TrainConfig(batch_size=32, learning_rate=4e-3)
    model = create("vae", data.spec, "tiny", training=training)
    model.fit(data.train, steps=200, progress=False)
    images = data.test.images[:60]
    ll = model.log_likelihood(images, generator=generator())
    assert ll.details["kl"] > 1
    assert (model.activity(images) > 0.01).sum() >= 5
    assert ll.bits_per_dim.mean() < 2.9  # log2(17) = 4.09 without learning; a mean image gets about 3


def test_classes_are_learnt():
    """Images of class y are all black or all white: the right class makes them likely, the wrong one not."""
    spec = DataSpec((1, 4, 4), 2, "class", 2)
    model = create("vae", spec, "tiny")
    classes = torch.arange(128) % 2
    images = classes.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    model.fit((images, classes), steps=40, progress=False)
    right, wrong, unknown = (
        model.log_likelihood(images[:8], c, generator=generator()).nats.mean().item()
        for c in (classes[:8], 1 - classes[:8], None)
    )
    assert right > -1 and wrong < right - 5
    assert unknown == pytest.approx(right - math.log(2), abs=0.1)
    assert (
        model.sample(50, classes[:50], generator=generator())
        .float()
        .mean((1, 2, 3))
        .sub(classes[:50])
        .abs()
        .mean()
        < 0.1
    )


# --- the rest --------------------------------------------------------------------------------------------------


def test_interpolation_begins_and_ends_at_the_reconstructions():
    model = perturbed(TINY.build(FOUR), 0.5)
    x_0, x_1 = all_images(FOUR)[3:6], all_images(FOUR)[100:103]
    for spherical in (False, True):
        path = model.interpolate(x_0, x_1, 5, spherical=spherical)
        assert path.shape == (3, 5, 1, 2, 2) and path.dtype == torch.uint8
        assert torch.equal(path[:, 0], model.reconstruct(x_0))
        assert torch.equal(path[:, -1], model.reconstruct(x_1))


def test_spherical_interpolation_turns_at_a_steady_rate():
    z_0, z_1 = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0], [-1.0, -1.0]])
    path = interpolate_spherically(z_0, z_1, 3)
    torch.testing.assert_close(path[0, 1], torch.tensor([2.0, 2.0]) / 2**0.5)
    torch.testing.assert_close(path[1, 1], torch.zeros(2))  # opposite ends: the straight line
    assert path.isfinite().all()


def test_traversals_vary_the_most_active_latents():
    model = perturbed(replace(TINY, latent_dim=4).build(FOUR), 0.5)
    images = all_images(FOUR)
    grid = model.traversals(images, most=3, n=5, span=2.0)
    assert grid.shape == (3, 5, 1, 2, 2)
    activity = model.activity(images)
    z = model.encode(images[:1]).mean.detach().repeat(5, 1)
    means, dim = model.encode(images).mean.detach(), activity.argmax()
    z[:, dim] = means[:, dim].mean() + means[:, dim].std(correction=0) * torch.linspace(-2, 2, 5)
    expected = model.distribution.mean(model.eval().decode(z)).round().to(torch.uint8)
    assert torch.equal(grid[0], expected)


def test_activity_is_zero_for_a_switched_off_latent():
    model = perturbed(TINY.build(FOUR), 0.5)
    with torch.no_grad():
        model.encoder.head.weight[1] = 0
    activity = model.activity(all_images(FOUR))
    assert activity[1] == 0 and activity[0] > 0.01


def test_bf16_training_keeps_the_loss_in_float32():
    model = perturbed(TINY.build(DataSpec((3, 6, 5), 256)), 0.1)
    images = torch.randint(256, (4, 3, 6, 5), dtype=torch.uint8, generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        low = model.loss(Batch(images), generator=generator())
    full = model.loss(Batch(images), generator=generator())
    assert low.total.dtype == low.parts["kl"].dtype == torch.float32
    torch.testing.assert_close(low.total, full.total, rtol=0.02, atol=0.0)


def test_mistakes_are_named():
    with pytest.raises(GenzooError, match="FreeBits does not go with importance_samples"):
        replace(TINY, kl=FreeBits(), importance_samples=2).build(FOUR)
    with pytest.raises(GenzooError, match="real-valued"):
        TINY.build(DataSpec((2,), None))
    with pytest.raises(GenzooError, match="latent_dim of VAEConfig must be a whole number from 1"):
        replace(TINY, latent_dim=0).build(FOUR)
    with pytest.raises(GenzooError, match="mse_scale of VAEConfig must be a number above 0"):
        replace(TINY, output="mse", mse_scale=0.0).build(FOUR)
    with pytest.raises(GenzooError, match="unknown output distribution 'gauss'"):
        replace(TINY, output="gauss").build(FOUR)


def test_the_kl_weighting_has_flags():
    from genzoo.cli.parsing import parse_known

    config, rest = parse_known(VAEConfig, ["--kl.fraction", "0.1", "--kl.beta", "4"], "test", default=TINY)
    assert config == replace(TINY, kl=WarmUp(0.1, 4.0)) and not rest
