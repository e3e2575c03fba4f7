"""Classical baselines: exact ones sum to one, bounds stay below, codecs give back every pixel."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from small_models import images, rng

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import DataSpec
from genzoo.evaluation.baselines import (
    PPCA,
    CodecBaseline,
    IndependentPixels,
    MixtureBaseline,
    PPCABaseline,
    Spectrum,
    best_mixture,
    bits_per_dim_of,
    codec_baselines,
    dequantised,
    fitted_baselines,
    mixture_bound,
)
from genzoo.metrics.codecs import CODECS, JPEG_XL, PNG, WEBP

SMALL = DataSpec((1, 2, 2), levels=3)


def every_image(spec):
    values = list(product(range(spec.levels), repeat=spec.dims))
    return torch.tensor(values, dtype=torch.uint8).view(-1, *spec.shape)


# --- independent pixels ----------------------------------------------------------------------------------------


def test_independent_pixels_sum_to_one_and_are_counts():
    train = images(7, SMALL) * (images(7, SMALL, seed=1) > 0)
    baseline = IndependentPixels.fit(train, SMALL)
    answer = baseline.log_likelihood(every_image(SMALL))
    assert answer.kind is LikelihoodKind.EXACT and answer.stderr is None
    assert answer.nats.exp().sum().item() == pytest.approx(1, abs=1e-12)
    counts = [[(train.flatten(1)[:, i] == v).sum().item() for v in range(3)] for i in range(4)]
    expected = sum(math.log((counts[i][v] + 1) / 10) for i, v in enumerate((2, 0, 1, 2)))
    one = torch.tensor([2, 0, 1, 2], dtype=torch.uint8).view(1, 1, 2, 2)
    assert baseline.log_likelihood(one).nats.item() == pytest.approx(expected)


def test_more_images_than_a_chunk_change_nothing():
    spec = DataSpec((3, 2, 2), levels=5)
    train = images(2300, spec)
    whole = IndependentPixels.fit(train, spec)
    assert whole.images == 2300
    counts = torch.stack([torch.bincount(c.long(), minlength=5) for c in train.flatten(1).T])
    torch.testing.assert_close(whole.log_probs, ((counts + 1) / (2300.0 + 5)).double().log())
    parts = torch.cat([whole.log_likelihood(part).nats for part in train.split(777)])
    assert torch.equal(whole.log_likelihood(train).nats, parts)


# --- probabilistic PCA -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("components", [0, 1, 3, 6])
def test_ppca_is_scikit_learns(components):
    """PCA.score_samples is Tipping and Bishop's model with n - 1 in the covariance."""
    points = torch.randn(200, 7, generator=rng(), dtype=torch.float64) @ torch.randn(
        7, 7, generator=rng(1), dtype=torch.float64
    )
    fresh = torch.randn(50, 7, generator=rng(2), dtype=torch.float64)
    found = PPCA(Spectrum.of(points), components).log_prob(fresh).numpy()
    if components == 0:  # scikit-learn has no such model: one variance for all
        scale = points.var(0).mean().sqrt().item()
        expected = norm.logpdf(fresh.numpy(), points.mean(0).numpy(), scale).sum(1)
    else:
        expected = PCA(components, svd_solver="full").fit(points.numpy()).score_samples(fresh.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_moments_of_dequantised_images_are_those_of_many_draws():
    levels = images(40, DataSpec((1, 1, 3), 4)).flatten(1)
    exact = Spectrum.of(levels, dequantised=True)
    drawn = Spectrum.of(torch.from_numpy(dequantised(levels.numpy(), 20_000, seed=0)))
    torch.testing.assert_close(exact.mean, drawn.mean, rtol=0, atol=3e-3)
    torch.testing.assert_close(exact.values, drawn.values, rtol=0, atol=0.05)  # n - 1 is 39 or 800,000 - 1


def test_the_bound_is_the_mean_over_the_noise():
    spec = DataSpec((1, 2, 3), levels=6)
    model = PPCABaseline.choose(images(300, spec), images(50, spec, 1), spec, [2]).model
    levels = images(5, spec, seed=2).flatten(1)
    draws = torch.rand(100_000, 6, generator=rng(), dtype=torch.float64)
    for one, bound in zip(levels, model.bound(levels), strict=True):
        nats = model.log_prob(one + draws)
        assert bound.item() == pytest.approx(nats.mean().item(), abs=4 * nats.std().item() / 100_000**0.5)


def test_the_bound_lies_below_the_mass_of_the_bin():
    """Of one dimension the mass is a difference of normal probabilities; all bins together hold at most 1."""
    spec = DataSpec((1, 1, 2), levels=4)
    baseline = PPCABaseline.choose(images(100, spec), images(100, spec, 1), spec, [0])
    mean, scale = baseline.model.spectrum.mean.numpy(), baseline.model.values[0].sqrt().item()
    found = baseline.log_likelihood(every_image(spec))
    low = every_image(spec).flatten(1).numpy().astype(float)
    mass = np.log(norm.cdf(low + 1, mean, scale) - norm.cdf(low, mean, scale)).sum(1)
    assert (found.nats.numpy() < mass).all() and np.abs(found.nats.numpy() - mass).max() < 0.2
    assert found.kind is LikelihoodKind.LOWER_BOUND and found.nats.exp().sum() < 1


def test_components_are_chosen_on_validation():
    """Images that vary along one direction: one component does best, and more images leave it so."""
    spec = DataSpec((1, 3, 3), levels=64)
    along = torch.randint(0, 60, (400, 1), generator=rng())
    both = (along + torch.randint(0, 4, (400, 9), generator=rng(1))).to(torch.uint8).view(-1, 1, 3, 3)
    chosen = PPCABaseline.choose(both[:30], both[30:], spec)
    assert chosen.model.components == 1
    scores = {k: PPCABaseline.choose(both[:30], both[30:], spec, [k]).report(both[30:]) for k in range(9)}
    assert min(scores, key=lambda k: scores[k].bits_per_dim) == 1
    assert chosen.log_likelihood(both).details["components"] == 1


# --- mixtures --------------------------------------------------------------------------------------------------


def test_mixture_of_one_by_hand():
    levels = images(200, SMALL).flatten(1).numpy().astype(float)
    mixture = GaussianMixture(1, covariance_type="diag", random_state=0).fit(dequantised(levels, 3, seed=1))
    scale = mixture.covariances_[0] ** 0.5
    u = np.random.default_rng(5).random((2, *levels.shape))
    expected = norm.logpdf(levels + u, mixture.means_[0], scale).sum(2).mean(0)
    np.testing.assert_allclose(mixture_bound(mixture, levels, draws=2, seed=5), expected, rtol=1e-9)
    bits = bits_per_dim_of(mixture, levels, draws=2, seed=5)
    assert bits == pytest.approx(-expected.mean() / (4 * math.log(2)))


def test_the_best_mixture_is_the_best_on_validation():
    spec = DataSpec((1, 2, 2), levels=32)
    centres = torch.tensor([[2, 2, 28, 28], [28, 2, 2, 28], [15, 28, 15, 2]])
    which = torch.randint(3, (600,), generator=rng())
    levels = (centres[which] + torch.randint(0, 3, (600, 4), generator=rng(1))).numpy().astype(float)
    train, val = levels[:300], levels[300:]
    score, mixture = best_mixture(train, val, components=(1, 3), regularisation=(1e-3,))
    assert mixture.n_components == 3 and score == bits_per_dim_of(mixture, val, seed=2)
    assert score < best_mixture(train, val, components=(1,))[0] - 0.5
    assert best_mixture(train, val, covariances=("full",), components=(2, 30))[1].n_components == 2
    with pytest.raises(GenzooError, match="no mixture"):
        best_mixture(train[:2], val, components=(5,))
    tensor = torch.from_numpy(levels).to(torch.uint8).view(-1, 1, 2, 2)
    baseline = MixtureBaseline.choose(tensor[:300], tensor[300:], spec)
    answer = baseline.log_likelihood(tensor[300:])
    assert answer.kind is LikelihoodKind.LOWER_BOUND and answer.details["components"] > 1
    assert MixtureBaseline.choose(tensor[:5], tensor[300:], spec).mixture.n_components == 1


# --- codecs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize(
    ("shape", "levels"),
    [((1, 8, 8), 17), ((1, 9, 7), 2), ((3, 6, 5), 256), ((3, 4, 4), 2), ((2, 5, 4), 256), ((1, 2, 2), 256)],
    ids=str,
)
def test_files_give_back_every_pixel(codec, shape, levels):
    if not codec.available:
        pytest.skip(f"{codec.name} is not available here")
    spec = DataSpec(shape, levels)
    noise = images(6, spec)
    every = torch.cat([noise, torch.zeros_like(noise[:1]), torch.full_like(noise[:1], levels - 1)])
    files = [codec.encode(image, levels) for image in every.numpy()]
    for image, file in zip(every.numpy(), files, strict=True):
        np.testing.assert_array_equal(codec.decode(file, spec), image)
    found = CodecBaseline(codec, spec).log_likelihood(every)
    assert found.kind is LikelihoodKind.LOWER_BOUND and found.details["counted"].startswith("whole files")
    np.testing.assert_allclose(found.bits_per_dim, [8 * len(file) / spec.dims for file in files])


def test_pillows_own_codecs_are_offered_and_jpeg_xl_where_installed():
    offered = {b.name for b in codec_baselines(SMALL)}
    assert {PNG.name, WEBP.name} <= offered and (JPEG_XL.name in offered) == JPEG_XL.available
    assert codec_baselines(DataSpec((1, 2, 2), 999)) == []
    assert codec_baselines(DataSpec((2,), None)) == []


# --- all of them -----------------------------------------------------------------------------------------------


def test_constant_images():
    """What is certain costs a pixel next to nothing, but a code its container and a density its bins."""
    spec = DataSpec((1, 8, 8), levels=16)
    same = torch.full((500, 1, 8, 8), 5, dtype=torch.uint8)
    pixels, ppca, *_ = fitted_baselines(same, same[:20], spec)
    assert pixels.report(same).bits_per_dim == pytest.approx(-math.log2(501 / 516))
    # a normal with the variance of uniform noise on the bin: its differential entropy
    expected = 0.5 * math.log2(2 * math.pi * math.e / 12)
    report = ppca.report(same)
    assert report.bits_per_dim == pytest.approx(expected) and report.bits_per_dim_stderr < 1e-9
    file = len(PNG.encode(same[0].numpy(), 16))
    assert CodecBaseline(PNG, spec).report(same[:3]).bits_per_dim == pytest.approx(8 * file / 64)
    assert 57 < file < 85  # signature, header and end are 57 bytes


def test_reports_and_mistakes():
    train, val = images(40, SMALL), images(20, SMALL, 1)
    for baseline in [*fitted_baselines(train, val, SMALL), *codec_baselines(SMALL)]:
        report = baseline.report(val)
        assert report.images == 20 and math.isfinite(report.bits_per_dim) and report.details
        with pytest.raises(GenzooError, match="no images"):
            baseline.report(val[:0])
        with pytest.raises(GenzooError, match="shape"):
            baseline.report(val[..., :1])
    real = DataSpec((2,), None)
    with pytest.raises(GenzooError, match="real-valued"):
        IndependentPixels.fit(torch.zeros(3, 2), real)
    with pytest.raises(GenzooError, match="integer images"):
        PPCABaseline.choose(torch.zeros(3, 2), torch.zeros(3, 2), real)
    with pytest.raises(GenzooError, match="256 levels"):
        CodecBaseline(PNG, DataSpec((1, 2, 2), 999)).report(torch.zeros(1, 1, 2, 2, dtype=torch.long))
    with pytest.raises(GenzooError, match="two images"):
        Spectrum.of(torch.zeros(1, 3))
    with pytest.raises(GenzooError, match="leave no noise"):
        PPCA(Spectrum.of(torch.randn(9, 3, generator=rng())), 3).log_prob(torch.zeros(1, 3))
