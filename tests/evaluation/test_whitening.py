"""Whitening of features, images made small for an encoder, and the default space that is made of both."""

from dataclasses import replace

import pytest
import torch

import genzoo
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data.split import TensorSplit
from genzoo.evaluation.features import combined_space as combined
from genzoo.evaluation.features.combined_space import combined_space
from genzoo.evaluation.features.reduction import ReducedSplit, reduced, reduced_spec
from genzoo.evaluation.features.whitening import Whitening
from genzoo.metrics.frechet import frechet_distance


def rows(n=400, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator).double() * torch.tensor([3.0, 1.0, 0.5, 0.1, 0.01])[:d]


# --- whitening -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_variances_are_shrunk_as_told(shrinkage):
    x = rows()
    whitening = Whitening.of(x, 5, shrinkage)
    variances = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)
    found = torch.cov(whitening(x).double().T)
    wanted = variances / (variances + shrinkage * variances.mean())
    assert torch.allclose(found.diag(), wanted, atol=1e-4) and whitening(x).mean(0).abs().max() < 1e-5
    assert (found - found.diag().diag()).abs().max() < 1e-4


def test_the_distance_does_not_care_for_units_of_features():
    """Without shrinkage it is the same after any linear map of all features."""
    train, real, fake = rows(seed=1), rows(seed=2), rows(seed=3) + 0.1
    turn = torch.randn(5, 5, generator=torch.Generator().manual_seed(4)).double()
    plain, mapped = Whitening.of(train, 5, 0.0), Whitening.of(train @ turn, 5, 0.0)
    a, b = (
        frechet_distance(w(r), w(f)) for w, r, f in ((plain, real, fake), (mapped, real @ turn, fake @ turn))
    )
    assert a == pytest.approx(b, rel=1e-3)


def test_directions_without_variance_are_left_out():
    flat = torch.cat([rows(d=2), torch.ones(400, 1).double()], 1)
    whitening = Whitening.of(flat, 3, 0.0)
    assert whitening.width == 2 and whitening(flat).isfinite().all()


def test_one_row_is_refused():
    with pytest.raises(GenzooError, match="two or more"):
        Whitening.of(rows(1), 5, 0.1)


# --- images made small -----------------------------------------------------------------------------------------


def test_reduced_images_are_means_over_areas():
    spec = DataSpec((1, 64, 64), levels=2)
    image = (torch.arange(64) % 2).expand(1, 1, 64, 64).to(torch.uint8)
    small = reduced(image, spec)
    assert reduced_spec(spec) == DataSpec((1, 32, 32), 256)
    assert small.shape == (1, 1, 32, 32) and (small == 128).all()  # half of 255


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 20), (1, 2, 2)])
def test_small_images_stay(shape):
    spec = DataSpec(shape, 17)
    images = torch.randint(17, (3, *shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert reduced(images, spec) is images and reduced_spec(spec) == spec


def test_a_reduced_split_gives_the_reduced_images():
    spec = DataSpec((3, 40, 66), 256)
    images = torch.randint(256, (5, *spec.shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    split = ReducedSplit(TensorSplit(images), spec)
    assert len(split) == 5 and split.labels is None
    assert torch.equal(split.images[:], reduced(images, spec)) and split.images.shape == (5, 3, 14, 22)
    assert torch.equal(split.batch(torch.tensor([3, 1])).images, reduced(images[[3, 1]], spec))


# --- the default space -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case():
    spec = DataSpec((1, 8, 8), 17)
    images = torch.randint(17, (60, *spec.shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return genzoo.create_encoder("simclr", spec, "tiny", seed=0), spec, TensorSplit(images)


def test_both_parts_are_in_the_space(case):
    encoder, spec, train = case
    space = combined_space(encoder, spec, train, "own", "abc")
    features = space(train.images)
    rough = 16  # two scales of 8 filters
    shown, variances = space.width - rough, features.var(0)
    for part, settings in ((variances[:shown], combined.SHOWN), (variances[shown:], combined.ROUGH)):
        weight = settings.total / len(part)  # times variances below 1, since they are shrunk
        assert weight / 4 < part.max() < 1.01 * weight
    assert "abc" in space.aliases and space.identity not in space.aliases


def test_settings_are_part_of_the_identity(case, monkeypatch):
    encoder, spec, train = case
    first = combined_space(encoder, spec, train, "own", "abc").identity
    assert combined_space(encoder, spec, train, "own", "abd").identity != first
    monkeypatch.setattr(combined, "ROUGH", replace(combined.ROUGH, total=1.0))
    assert combined_space(encoder, spec, train, "own", "abc").identity != first


def test_images_too_small_for_texture_have_what_the_encoder_sees():
    spec = DataSpec((1, 2, 2), 4)
    images = torch.randint(4, (40, *spec.shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    encoder = genzoo.create_encoder("simclr", spec, "tiny", seed=0)
    assert 0 < combined_space(encoder, spec, TensorSplit(images), "own", "abc").width <= 32
