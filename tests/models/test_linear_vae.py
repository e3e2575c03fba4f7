"""The linear VAE against probabilistic PCA, whose likelihood and posterior are known in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from genzoo.core.spec import Batch, DataSpec
from genzoo.models.vae.vector_vae import VAE, VAEConfig, VAEParts
from genzoo.nn.latent_priors import StandardNormal
from genzoo.objectives.elbo import ConstantBeta


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class GaussianDensity:
    """The output of a linear VAE: params `[..., 2]` are mean and log-scale of a real number."""

    n_params = 2

    def log_prob(self, params, x):
        mean, log_scale = params.unbind(-1)
        return -0.5 * ((x - mean) / log_scale.exp()) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)

    def sample(self, params, *, generator=None):
        mean, log_scale = params.unbind(-1)
        return mean + log_scale.exp() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)

    def mean(self, params):
        return params[..., 0]


class LinearEncoder(torch.nn.Module):
    def __init__(self, dims, latents):
        super().__init__()
        self.mean = torch.nn.Linear(dims, latents)
        self.log_scale = torch.nn.Parameter(torch.zeros(latents))

    def forward(self, x, cond):
        mean = self.mean(x.flatten(1))
        return mean, self.log_scale.expand_as(mean)


class LinearDecoder(torch.nn.Module):
    def __init__(self, dims, latents):
        super().__init__()
        self.mean = torch.nn.Linear(latents, dims)
        self.log_scale = torch.nn.Parameter(torch.zeros(()))

    def forward(self, z, cond):
        mean = self.mean(z)
        return torch.stack([mean, self.log_scale.expand_as(mean)], -1).view(len(z), 1, 1, -1, 2)


def linear_vae(dims, latents):
    config = VAEConfig(latent_dim=latents, kl=ConstantBeta())
    encoder, decoder = LinearEncoder(dims, latents), LinearDecoder(dims, latents)
    parts = VAEParts(torch.nn.Identity(), encoder, decoder, StandardNormal(latents), GaussianDensity())
    return VAE(DataSpec((1, 1, dims), None), config, parts).double()


def factor_data(n=400, dims=6, latents=2):
    """Real vectors `[n, dims]` from a few factors, and the maximum-likelihood pPCA (Tipping & Bishop 1999)."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(latents, dims)) * np.array([[1.5], [0.8]])
    x = rng.normal(size=(n, latents)) @ loadings + 0.4 * rng.normal(size=(n, dims)) + rng.normal(size=dims)
    mu, covariance = x.mean(0), np.cov(x.T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    variance = values[latents:].mean()
    w = vectors[:, :latents] * np.sqrt(values[:latents] - variance)
    exact = stats.multivariate_normal(mu, w @ w.T + variance * np.eye(dims)).logpdf(x)
    return x, mu, w, variance, exact


def as_images(x):
    return torch.tensor(x).view(len(x), 1, 1, -1)


def set_to_optimum(model, mu, w, variance, mean_error=0.0):
    """z | x ~ N(M^-1 w^T (x - mu), variance M^-1), M = w^T w + variance, which is diagonal here."""
    m = np.diag(w.T @ w) + variance
    backward = (w / m).T + mean_error
    with torch.no_grad():
        model.encoder.mean.weight.copy_(torch.tensor(backward))
        model.encoder.mean.bias.copy_(torch.tensor(-backward @ mu))
        model.encoder.log_scale.copy_(torch.tensor(0.5 * np.log(variance / m)))
        model.decoder.mean.weight.copy_(torch.tensor(w))
        model.decoder.mean.bias.copy_(torch.tensor(mu))
        model.decoder.log_scale.fill_(0.5 * math.log(variance))
    return model


def expected_loss(model, x):
    """The loss's mean over its noise, exact: in z it is quadratic, so 2 d points +-sqrt(d) e_i suffice."""
    d = model.config.latent_dim
    total = 0.0
    for i in range(d):
        for sign in (-1, 1):
            eps = torch.zeros(len(x), d, dtype=torch.float64)
            eps[:, i] = sign * d**0.5
            total = total + loss_with_noise(model, x, eps)
    return total / (2 * d)


def loss_with_noise(model, x, eps):
    from unittest.mock import patch

    with patch("genzoo.objectives.elbo.normal_noise", lambda like, generator: eps):
        return model.loss(Batch(as_images(x))).total.detach()


def test_linear_vae_at_the_optimum_is_probabilistic_pca():
    x, mu, w, variance, exact = factor_data()
    model = set_to_optimum(linear_vae(6, 2), mu, w, variance)
    np.testing.assert_allclose(-expected_loss(model, x).numpy(), exact, atol=1e-5)
    ll = model.log_likelihood(as_images(x), generator=generator())
    np.testing.assert_allclose(ll.nats.numpy(), exact, atol=1e-5)
    assert ll.stderr.max() < 1e-6  # weights are constant under the true posterior
    assert ll.details["elbo"] == pytest.approx(exact.mean(), abs=1e-5)


def test_iwae_rises_with_k_towards_the_exact_likelihood():
    x, mu, w, variance, exact = factor_data()
    model = set_to_optimum(linear_vae(6, 2), mu, w, variance, mean_error=0.1)
    means = [-expected_loss(model, x).mean().item()]
    for model.samples in (4, 32, 256):
        ll = model.log_likelihood(as_images(x), generator=generator())
        means.append(ll.nats.mean().item())
        assert ll.details["elbo"] < means[-1]
    assert means == sorted(means) and means[-1] < exact.mean() + 5e-3
    gaps = exact.mean() - np.array(means)
    assert gaps[0] > 0.1 and abs(gaps[-1]) < 0.05 * gaps[0]


def test_linear_vae_trained_from_scratch_reaches_probabilistic_pca():
    x, *_, exact = factor_data()
    torch.manual_seed(0)
    model, images, g = linear_vae(6, 2), as_images(x), generator()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, 1000)
    for _ in range(1000):
        optimiser.zero_grad()
        model.loss(Batch(images), generator=g).total.mean().backward()
        optimiser.step()
        schedule.step()
    elbo = -expected_loss(model, x).mean().item()
    assert elbo <= exact.mean() + 1e-9
    assert elbo == pytest.approx(exact.mean(), rel=0.005)
