"""Guidance by hand, inversion and back, and imputation against conditional distributions."""

from dataclasses import dataclass

import pytest
import torch
from gaussian_paths import F64, GAUSSIAN, Recorder, at, normal, seeded, two_modes
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.models.diffusion.samplers.editing import impute, invert
from genzoo.models.diffusion.samplers.guidance import guided
from genzoo.models.diffusion.samplers.solvers import (
    DDIM,
    AdamsMoulton,
    Ancestral,
    Dopri5,
    DPMSolverPP2M,
    Heun,
)
from genzoo.models.diffusion.samplers.time_grids import LogSNRGrid, UniformGrid
from genzoo.objectives.denoising.paths import (
    VE,
    Linear,
    Prediction,
    Trigonometric,
    VPCosine,
    VPLinear,
    append_dims,
)

# --- guidance ------------------------------------------------------------------------------------------------


def score_denoiser(path, centres, scale=0.5):
    """eps = -sigma grad log p_t, by automatic differentiation, of an equal mixture of N(centre, scale^2)."""

    def denoise(x_t, t):
        c = path.at(t)
        alpha, sigma = append_dims(c.alpha, x_t), append_dims(c.sigma, x_t)
        x = x_t.detach().requires_grad_()
        variance = (alpha * scale) ** 2 + sigma**2
        logs = torch.stack([-((x - alpha * centre) ** 2) / (2 * variance) for centre in centres])
        (score,) = torch.autograd.grad(logs.logsumexp(0).sum(), x)
        eps = -sigma * score
        return Prediction((x_t - sigma * eps) / alpha, eps)

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
        torch.testing.assert_close(within.x0[row], expected.x0[row])
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
            return Prediction(x, (z * c.sigma / variance) @ basis.T)

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


def test_noise_added_again_leads_back_to_the_same_noise():
    """Of data that are all 0, x_t is N(0, sigma_t^2) however often a step is taken back."""
    path, images = Linear(), torch.zeros(20_000, 1, dtype=F64)

    def nothing(x_t, t):
        return Prediction(torch.zeros_like(x_t), x_t / path.at(t[0]).sigma)

    times, everywhere = torch.tensor([0.6, 0.5], dtype=F64), torch.ones(1, dtype=torch.bool)
    drawn = impute(DDIM(), nothing, path, times, images, everywhere, resamplings=5, generator=seeded(0))
    assert drawn.std().item() == pytest.approx(0.5, rel=0.02)


def test_imputation_refuses_no_resamplings():
    x = normal(2, 3)
    with pytest.raises(GenzooError, match="resamplings"):
        impute(DDIM(), two_modes(Linear()), Linear(), UniformGrid()(Linear(), 3), x, x > 0, resamplings=0)
