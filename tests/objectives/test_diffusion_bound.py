"""The diffusion bound against closed forms on Gaussian data, independent KL divergences and enumerated truth."""

import math

import pytest
import torch
from enumeration import all_images
from scipy import integrate, special, stats
from torch.distributions import Normal, kl_divergence

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import DataSpec
from genzoo.objectives.denoising.paths import (
    VE,
    Linear,
    Prediction,
    Trigonometric,
    VPCosine,
    VPLinear,
    append_dims,
)
from genzoo.objectives.dequantisation import bin_centres
from genzoo.objectives.likelihood.diffusion_bound import (
    decoder_table,
    denoising_error,
    diffusion_bound,
    level_log_probs,
    stratified,
)

PATHS = [VPLinear(), VPCosine(), Linear(), Trigonometric(), VE(sigma_max=20.0)]
SPEC = DataSpec((1, 2, 2), levels=4)
EVERY = all_images(SPEC)
IMAGE = torch.tensor([[[[0, 3], [2, 1]]]])
SCALE = 0.6
"""Standard deviation of the Gaussian data that `gaussian_denoiser` believes in."""

by_name = pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def at(path, t):
    return path.at(torch.tensor(t, dtype=torch.float64))


def snr(path, t):
    return path.log_snr(torch.tensor(t, dtype=torch.float64)).exp().item()


def solved_from(path, x_hat):
    """A denoiser from a function of (x_t, t) that gives x; the noise follows from it."""

    def denoise(x_t, t):
        alpha, sigma, _, _ = path.at(t)
        x = x_hat(x_t, t)
        return Prediction(x, (x_t - append_dims(alpha, x_t) * x) / append_dims(sigma, x_t))

    return denoise


def gaussian_denoiser(path):
    """E[x | x_t] for x ~ N(0, SCALE^2)."""

    def x_hat(x_t, t):
        alpha, sigma, _, _ = path.at(t)
        return append_dims(alpha * SCALE**2 / ((alpha * SCALE) ** 2 + sigma**2), x_t) * x_t

    return solved_from(path, x_hat)


def gaussian_error(x, gamma):
    """E|x - x_hat|^2 of `gaussian_denoiser` at SNR `gamma`, given x: linear in x^2 and dims."""
    return (x.square() + gamma * SCALE**4).sum().item() / (1 + SCALE**2 * gamma) ** 2


def gaussian_diffusion_term(x, low, high):
    """1/2 int of `gaussian_error` over the SNR from `low` to `high`, by its antiderivative."""
    a, d, square = SCALE**2, x.numel(), x.square().sum().item()

    def antiderivative(gamma):
        return (d - square / a) / (1 + a * gamma) + d * math.log1p(a * gamma)

    return 0.5 * (antiderivative(high) - antiderivative(low))


# --- diffusion term ------------------------------------------------------------------------------------------


@by_name
@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_error_per_time_equals_the_closed_form(path, t):
    n, x = 20_000, bin_centres(IMAGE, 4)
    eps = torch.randn((n, 1, 2, 2), generator=seeded(), dtype=torch.float64)
    times = torch.full((n,), t, dtype=torch.float64)
    errors = denoising_error(gaussian_denoiser(path), path, x.expand(n, -1, -1, -1), times, eps)
    expected = gaussian_error(x, snr(path, t))
    assert abs(errors.mean().item() - expected) < 4 * errors.std().item() / n**0.5
    assert errors.std().item() / n**0.5 < 0.02 * expected


@by_name
def test_continuous_terms_equal_their_closed_forms(path):
    first, n, x = 0.01, 2000, bin_centres(IMAGE, 4)
    bound = diffusion_bound(
        gaussian_denoiser(path),
        path,
        IMAGE.expand(n, -1, -1, -1),
        4,
        t_min=first,
        times=8,
        dtype=torch.float64,
        generator=seeded(),
    )
    expected = gaussian_diffusion_term(x, snr(path, 1.0), snr(path, first))
    spread_of_mean = bound.diffusion.std().item() / n**0.5
    assert abs(bound.diffusion.mean().item() - expected) < 4 * spread_of_mean < 0.05 * expected
    alpha, sigma, _, _ = at(path, 1.0)
    prior = kl_divergence(Normal(alpha * x, sigma), Normal(0.0, sigma)).sum()
    torch.testing.assert_close(bound.prior, prior.expand(n))
    error = bound.stderr.square().mean().sqrt() / bound.diffusion.std()
    assert 0.95 < error < 2  # honest, and by differences of neighbours never too small
    assert bound.kind is LikelihoodKind.LOWER_BOUND and bound.nats.shape == (n,)


@by_name
@pytest.mark.parametrize("times", [None, 3], ids=["every step", "some steps"])
def test_discrete_term_equals_its_closed_form(path, times):
    first, steps, n, x = 0.01, 12, 4000, bin_centres(IMAGE, 4)
    t = torch.linspace(first, 1, steps + 1, dtype=torch.float64)
    gamma = path.log_snr(t).exp().tolist()
    expected = sum(0.5 * (gamma[i] - gamma[i + 1]) * gaussian_error(x, gamma[i + 1]) for i in range(steps))
    bound = diffusion_bound(
        gaussian_denoiser(path),
        path,
        IMAGE.expand(n, -1, -1, -1),
        4,
        t_min=first,
        steps=steps,
        times=times,
        generator=seeded(),
    )
    spread_of_mean = bound.diffusion.std().item() / n**0.5
    assert abs(bound.diffusion.mean().item() - expected) < 4 * spread_of_mean < 0.1 * expected


@by_name
def test_steps_are_the_kl_divergences_of_the_reverse_transitions(path):
    """With a constant x_hat nothing is random: q(x_s|x_t, x) and q(x_s|x_t, x_hat) by Gaussian conditioning."""
    first, steps, guess, x = 0.05, 7, 0.1, bin_centres(IMAGE, 4)
    t = torch.linspace(first, 1, steps + 1, dtype=torch.float64)
    alpha, sigma, _, _ = path.at(t)
    total = 0.0
    for i in range(steps):
        ratio = alpha[i + 1] / alpha[i]
        transition = sigma[i + 1] ** 2 - (ratio * sigma[i]) ** 2
        scale = (transition.sqrt() * sigma[i]) / sigma[i + 1]
        x_t = torch.full_like(x, 0.7)
        means = [
            ratio * (sigma[i] / sigma[i + 1]) ** 2 * x_t + alpha[i] * transition / sigma[i + 1] ** 2 * data
            for data in (x, torch.full_like(x, guess))
        ]
        total += kl_divergence(*(Normal(mean, scale) for mean in means)).sum().item()
    denoise = solved_from(path, lambda x_t, t: torch.full_like(x_t, guess))
    bound = diffusion_bound(
        denoise, path, IMAGE, 4, t_min=first, steps=steps, times=None, dtype=torch.float64
    )
    assert bound.diffusion.item() == pytest.approx(total, rel=1e-9)


def test_float32_loses_nothing():
    path, first, n = VPLinear(), 1e-4, 4000
    totals = [
        diffusion_bound(
            gaussian_denoiser(path),
            path,
            IMAGE.expand(n, -1, -1, -1),
            4,
            t_min=first,
            times=4,
            dtype=d,
            generator=seeded(),
        )
        for d in (torch.float32, torch.float64)
    ]
    stderr = totals[0].diffusion.std() / n**0.5
    assert totals[0].nats.dtype == torch.float64
    assert abs(totals[0].diffusion.mean() - totals[1].diffusion.mean()) < 5 * stderr


def test_times_are_uniform_and_stratified():
    each = torch.stack([stratified(5, 4, seeded(s)) for s in range(2000)])  # [draws, strata, images]
    strata = torch.arange(4)[:, None] / 4
    assert ((each >= strata) & (each < strata + 0.25)).all()
    for j, i in ((0, 0), (2, 1), (3, 4)):
        assert stats.kstest((each[:, j, i] * 4 - j).numpy(), "uniform").pvalue > 1e-3
    gaps = (each.sort(2).values.diff(dim=2) * 20 - 1).abs()
    assert gaps.max() < 1e-9  # images spread evenly within a stratum
    assert abs(torch.corrcoef(each[:, :2, 0].T)[0, 1]) < 0.1


def test_a_single_time_says_nothing_of_its_error():
    denoise = gaussian_denoiser(Linear())
    assert diffusion_bound(denoise, Linear(), IMAGE, 4, t_min=0.01, times=1).stderr is None


# --- decoder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 17, 64])
@pytest.mark.parametrize(("path", "first"), [(VPLinear(), 1e-3), (Linear(), 0.02), (VE(), 0.0)], ids=str)
def test_decoder_is_normalised_and_its_expectation_exact(path, first, levels):
    alpha, sigma, _, _ = at(path, first)
    k = torch.arange(levels).repeat(500)
    eps = torch.randn(k.shape, generator=seeded(), dtype=torch.float64)
    x_t_min = alpha * bin_centres(k, levels) + sigma * eps
    log_p = level_log_probs(x_t_min, path, first, levels)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(len(k), dtype=torch.float64))
    density = stats.norm.pdf(
        (x_t_min[:3, None] / alpha).numpy(), bin_centres(torch.arange(levels), levels).numpy(), sigma / alpha
    )
    torch.testing.assert_close(
        log_p[:3].exp(), torch.from_numpy(density / density.sum(1, keepdims=True)), atol=1e-12, rtol=1e-6
    )
    table = decoder_table(path, first, levels)
    for k in (0, levels // 2, levels - 1):
        assert table[k].item() == pytest.approx(
            expected_decoder_nats(k, levels, sigma / alpha), rel=1e-7, abs=1e-12
        )


def expected_decoder_nats(k, levels, noise):
    """By adaptive quadrature, split where neighbouring levels are equally likely."""
    centres = bin_centres(torch.arange(levels), levels).numpy()

    def integrand(e):
        logits = -0.5 * ((centres[k] - centres) / float(noise) + e) ** 2
        return stats.norm.pdf(e) * (special.logsumexp(logits) - logits[k])

    half = 1 / (levels * float(noise))
    points = [e for e in (-half, half) if abs(e) < 12]
    return integrate.quad(integrand, -12, 12, points=points, limit=400, epsabs=1e-14, epsrel=1e-10)[0]


def test_decoder_table_does_not_depend_on_its_rule(monkeypatch):
    """A trapezoid rule four times as fine gives the same integrals."""
    path, tables, plain = Linear(), [], torch.linspace
    for finer in (1, 4):
        monkeypatch.setattr(
            torch, "linspace", lambda a, b, n, f=finer, **options: plain(a, b, (n - 1) * f + 1, **options)
        )
        tables += [decoder_table(path, first, 40) for first in (3e-3, 0.01, 0.1)]
    for coarse, fine in zip(tables[:3], tables[3:], strict=True):
        torch.testing.assert_close(coarse, fine, atol=1e-12, rtol=1e-10)


def test_decoder_term_of_an_image_is_the_sum_over_its_pixels():
    bound = diffusion_bound(gaussian_denoiser(Linear()), Linear(), EVERY, 4, t_min=0.2, times=1)
    table = decoder_table(Linear(), 0.2, 4)
    for i in (0, 77, 255):
        assert bound.decoder[i].item() == pytest.approx(
            sum(table[k].item() for k in EVERY[i].flatten().tolist())
        )


# --- the bound -----------------------------------------------------------------------------------------------


def random_network(seed, agree):
    """Weights that are anything but special; without `agree` its x and eps do not belong together."""
    weights = [
        torch.randn(n, m, generator=seeded(seed + i)) for i, (n, m) in enumerate([(5, 16), (16, 4), (16, 4)])
    ]

    def denoise_on(path):
        def hidden(x_t, t):
            return torch.tanh(torch.cat([x_t.flatten(1), t[:, None].to(x_t)], 1) @ weights[0])

        def x_hat(x_t, t):
            return 0.3 * torch.tanh(hidden(x_t, t) @ weights[1]).view_as(x_t)

        def denoise(x_t, t):
            eps = (hidden(x_t, t) @ weights[2]).view_as(x_t)
            return Prediction(solved_from(path, x_hat)(x_t, t).x0, eps)

        return solved_from(path, x_hat) if agree else denoise

    return denoise_on


@by_name
@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize("agree", [True, False])
def test_random_weights_sum_to_at_most_one(path, steps, agree):
    denoise = random_network(3, agree)(path)
    bound = diffusion_bound(
        denoise,
        path,
        EVERY,
        4,
        t_min=0.3,
        steps=steps,
        times=32 if steps is None else None,
        generator=seeded(),
    )
    assert 0 < bound.nats.exp().sum().item() < 1


P = torch.randn(256, generator=seeded(5), dtype=torch.float64).mul(1.5).log_softmax(0)
"""log P of `EVERY`: an arbitrary distribution of images of 2x2 pixels with four levels."""


def true_denoiser(path):
    """E[x | x_t] under `P`, by enumeration."""
    centres = bin_centres(EVERY, 4).flatten(1)

    def x_hat(x_t, t):
        alpha, sigma, _, _ = path.at(t)
        distance = (x_t.flatten(1)[:, None] - alpha[:, None, None] * centres).square().sum(2)
        share = (P - 0.5 * distance / sigma[:, None] ** 2).softmax(1)
        return (share @ centres).view_as(x_t)

    return solved_from(path, x_hat)


def bound_under_truth(path, first, steps, times):
    """The bound of every image, and the mean over P of its gap to log P with its standard error."""
    bound = diffusion_bound(
        true_denoiser(path),
        path,
        EVERY,
        4,
        t_min=first,
        steps=steps,
        times=times,
        dtype=torch.float64,
        generator=seeded(),
    )
    gap = (P.exp() * (P - bound.nats)).sum().item()
    return bound, gap, (P.exp() * bound.stderr).square().sum().sqrt().item()


@pytest.mark.parametrize("path", [VPLinear(), Linear(), Trigonometric()], ids=lambda p: type(p).__name__)
def test_true_denoiser_closes_the_gap_from_below(path):
    gaps = []
    for steps, times in ((4, None), (16, None), (64, None), (None, 64)):
        bound, gap, noise = bound_under_truth(path, 0.02, steps, times)
        assert ((bound.nats - P) / bound.stderr).mean() < 0.5 and gap > -4 * noise
        gaps.append(gap)
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0
    assert gaps[2] > gaps[3] and abs(gaps[3]) < 4 * noise < 0.5, (gaps, noise)


def test_less_noise_at_the_start_tightens_the_bound():
    gaps = [bound_under_truth(Linear(), first, None, 64)[1] for first in (0.6, 0.1)]
    assert gaps[0] > gaps[1] + 0.2


def test_the_bound_reports_its_terms():
    bound = diffusion_bound(
        gaussian_denoiser(Linear()), Linear(), EVERY[:5], 4, t_min=0.05, generator=seeded()
    )
    reported = bound.as_log_likelihood(SPEC)
    terms = [reported.details[name] for name in ("prior", "diffusion", "decoder")]
    assert sum(terms) == pytest.approx(-reported.nats.mean().item())
    assert (reported.kind, reported.details["times"]) == (LikelihoodKind.LOWER_BOUND, 16)
    assert torch.equal(reported.stderr, bound.stderr)


def test_same_generator_same_bound_and_the_global_state_stays():
    before = torch.get_rng_state()
    one, again, other = (
        diffusion_bound(gaussian_denoiser(Linear()), Linear(), IMAGE, 4, t_min=0.05, generator=seeded(s)).nats
        for s in (0, 0, 1)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"t_min": 0.0}, "no noise at t = 0"),
        ({"t_min": 1.5}, "first time"),
        ({"t_min": 0.01, "times": 0}, "times >= 1"),
        ({"t_min": 0.01, "times": None}, "times >= 1"),
        ({"t_min": 0.01, "steps": 0}, "steps >= 1"),
    ],
    ids=str,
)
def test_mistakes_are_one_clear_line(options, words):
    with pytest.raises(GenzooError, match=words) as error:
        diffusion_bound(gaussian_denoiser(Linear()), Linear(), IMAGE, 4, **options)
    assert "\n" not in str(error.value)


def test_predictions_that_overflow_are_reported():
    with pytest.raises(GenzooError, match="not finite"):
        diffusion_bound(lambda x, t: Prediction(x / 0, x / 0), Linear(), IMAGE, 4, t_min=0.01)
