"""Authenticity and C_T against closed forms, loops and scipy; copies are found and fresh samples are not."""

import math

import pytest
import torch
from PIL import Image
from scipy.stats import mannwhitneyu
from sklearn.cluster import KMeans
from small_models import rng

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.evaluation.copies_picture import neighbours_picture, save_neighbours
from genzoo.metrics.memorisation import authenticity, data_copying, mann_whitney_z, suspects


def normal(n, d, seed=0, scale=1.0):
    return torch.randn(n, d, generator=rng(seed), dtype=torch.float64) * scale


def distances(a, b):
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


# --- authenticity ------------------------------------------------------------------------------------------------


def test_authenticity_is_what_loops_say():
    train, fake = normal(60, 3), normal(50, 3, 1, 0.9)
    cross, own = distances(fake, train), distances(train, train)
    expected = []
    for row in cross.tolist():
        nearest = row.index(min(row))
        others = [own[nearest, k].item() for k in range(60) if k != nearest]
        expected.append(min(row) > min(others))
    found = authenticity(train, fake, block_mib=0.002)
    assert found.authentic.tolist() == expected
    assert found.value == pytest.approx(sum(expected) / 50)
    assert found.stderr == pytest.approx((found.value * (1 - found.value) / 50) ** 0.5)


# one less the chance that points of a Poisson process are each other's nearest neighbours (Schilling 1986)
MUTUAL = {1: 2 / 3, 2: 6 * math.pi / (8 * math.pi + 3 * math.sqrt(3)), 3: 16 / 27}


@pytest.mark.parametrize("d", MUTUAL)
def test_authenticity_of_fresh_points(d):
    train, fresh = (torch.rand(2500, d, generator=rng(seed), dtype=torch.float64) for seed in (0, 1))
    found = authenticity(train, fresh)
    assert abs(found.value - (1 - MUTUAL[d])) < 0.04


def test_authenticity_of_fresh_points_of_many_dimensions_is_near_a_half():
    # its limit is 1/2, from below; edges of the cube keep it off
    found = authenticity(torch.rand(1500, 12, generator=rng(0)), torch.rand(1500, 12, generator=rng(1)))
    assert 0.42 < found.value < 0.56


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-3])
def test_copies_are_not_authentic(noise):
    train = normal(300, 8)
    assert authenticity(train, train[:200] + noise * normal(200, 8, 1)).value == 0
    assert authenticity(train + 1e5, train[:200] + 1e5 + noise * normal(200, 8, 1)).value == 0


def test_samples_far_away_are_authentic():
    assert authenticity(normal(100, 4), normal(50, 4, 1) + 100).value == 1


# --- C_T -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_against_scipy(ties):
    first, second = normal(40, 1).flatten(), normal(60, 1, 1).flatten() + 0.3
    if ties:
        first, second = first.round(), second.round()
    theirs = mannwhitneyu(first, second, method="asymptotic", use_continuity=False, alternative="less").pvalue
    ours = torch.special.ndtr(torch.tensor(mann_whitney_z(first, second), dtype=torch.float64))
    assert ours.item() == pytest.approx(theirs, rel=1e-9)
    assert mann_whitney_z(second, first) == pytest.approx(-mann_whitney_z(first, second))


def test_ranks_of_equal_values():
    assert mann_whitney_z(torch.ones(5), torch.ones(7)) == 0
    with pytest.raises(GenzooError, match="values"):
        mann_whitney_z(torch.ones(0), torch.ones(7))


def by_scipy(train, held_out, fake, cells):
    """C_T as in the authors' code, but for ties and the correction for continuity."""
    clusters = KMeans(cells, n_init=10, random_state=0).fit(train.numpy())
    t, p, q = (torch.from_numpy(clusters.predict(x.numpy())) for x in (train, held_out, fake))
    total = weight = 0.0
    for cell in range(cells):
        near = [distances(x[of == cell], train[t == cell]).amin(1) for x, of in ((fake, q), (held_out, p))]
        m, n = map(len, near)
        if min(m, n) < 20:
            continue
        u = mannwhitneyu(*near, alternative="less").statistic
        total += n * (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
        weight += n
    return total / weight


@pytest.mark.parametrize("cells", [1, 3, 6])
def test_published_average(cells):
    train, held_out, fake = normal(300, 5), normal(200, 5, 1), normal(250, 5, 2, 0.8)
    found = data_copying(train, held_out, fake, cells=cells)
    assert found.value == pytest.approx(by_scipy(train, held_out, fake, cells), abs=1e-9)
    assert len(found.cells) == cells and found[4:] == (300, 200, 250)


@pytest.mark.parametrize("cells", [1, 3])
def test_standard_normal_for_equal_laws(cells):
    repeats = 60
    z = torch.tensor(
        [
            data_copying(
                normal(200, 6, 3 * s), normal(150, 6, 3 * s + 1), normal(180, 6, 3 * s + 2), cells=cells
            ).z
            for s in range(repeats)
        ],
        dtype=torch.float64,
    )
    assert abs(z.mean()) < 3.5 / repeats**0.5
    assert abs(z.var() - 1) < 3.5 * (2 / repeats) ** 0.5


def test_copies_and_strays():
    train, held_out = normal(400, 10), normal(300, 10, 1)
    copies = train[:300] + 1e-3 * normal(300, 10, 2)
    for options in ({}, {"cells": 1}, {"components": 4}, {"seed": 3}):
        assert data_copying(train, held_out, copies, **options).z < -15
        assert data_copying(train, held_out, train[:300], **options).z < -15
        assert data_copying(train, held_out, normal(300, 10, 2, 1.5), **options).z > 5
    half = torch.cat([train[:150] + 1e-3 * normal(150, 10, 2), normal(150, 10, 3)])
    assert -15 < data_copying(train, held_out, half).z < -5


def test_copying_in_one_mode_does_not_hide_behind_noise_in_another():
    """The reason for cells: over all modes at once the two cancel."""
    far = torch.tensor([40.0, 0.0], dtype=torch.float64)
    train = torch.cat([normal(300, 2), normal(300, 2, 1) + far])
    held_out = torch.cat([normal(300, 2, 2), normal(300, 2, 3) + far])
    fake = torch.cat([train[:300] + 1e-4 * normal(300, 2, 4), normal(300, 2, 5, 6.0) + far])
    scores = sorted(data_copying(train, held_out, fake, cells=2).cells)
    assert scores[0] < -15 and scores[1] > 5


def test_small_cells_are_left_out():
    far = 1000 + torch.zeros(30, 3, dtype=torch.float64)
    train = torch.cat([normal(200, 3), normal(30, 3, 1) + far])
    found = data_copying(train, normal(100, 3, 2), normal(100, 3, 3), cells=2)
    assert sum(map(math.isnan, found.cells)) == 1
    left = next(z for z in found.cells if not math.isnan(z))
    assert found.z == pytest.approx(left) and found.value == pytest.approx(left)


def test_components_are_those_of_the_training_features():
    """Directions in which only held-out rows and samples spread do not count."""
    train, held_out, fake = normal(300, 6), normal(200, 6, 1), normal(200, 6, 2)
    wide = [torch.cat([x, 1e-6 * noise * normal(len(x), 3, 4)], 1)
            for x, noise in ((train, 1), (held_out, 1e8), (fake, 1e5))]  # fmt: skip
    turn = torch.linalg.qr(normal(9, 9, 7))[0]
    found = data_copying(*(x @ turn + 100 for x in wide), components=6)
    assert found.z == pytest.approx(data_copying(train, held_out, fake, components=None).z, abs=0.05)


def test_order_blocks_and_offsets_change_nothing():
    train, held_out, fake = normal(200, 6), normal(150, 6, 1), normal(150, 6, 2, 0.9)
    expected = data_copying(train, held_out, fake, cells=1)
    found = data_copying(
        (train.flip(0) + 1e4).float(), (held_out + 1e4).float(), (fake.flip(0) + 1e4).float(),
        cells=1, block_mib=1e-4,
    )  # fmt: skip
    assert found.z == pytest.approx(expected.z, abs=0.02)  # the features themselves are rounded to 1e-3


# --- pictures ----------------------------------------------------------------------------------------------------


def test_suspects_begin_with_the_copies():
    train, fake = normal(100, 4), normal(60, 4, 1)
    fake[17], fake[5] = train[42], train[8] + 1e-3
    found = suspects(train, fake)
    assert (found.samples[:2].tolist(), found.train[:2].tolist()) == ([17, 5], [42, 8])
    assert found.ratios[0] == 0 and 0 < found.ratios[1] < 0.1 and found.distances[1] == pytest.approx(2e-3)
    assert found.ratios.tolist() == sorted(found.ratios.tolist()) and sorted(found.samples.tolist()) == list(
        range(60)
    )
    # below 1 is what authenticity counts
    assert (found.ratios > 1).sum() == authenticity(train, fake).authentic.sum()


def test_ratio_where_training_images_are_there_twice():
    train = torch.tensor([[0.0], [0.0], [5.0]])
    found = suspects(train, torch.tensor([[0.1], [0.0]]))
    assert found.samples.tolist() == [1, 0] and found.ratios.tolist() == [0, math.inf]


def test_picture_shows_pairs(tmp_path):
    train = torch.randint(256, (30, 1, 4, 4), generator=rng(0)).to(torch.uint8)
    samples = torch.randint(256, (9, 1, 4, 4), generator=rng(1)).to(torch.uint8)
    samples[6] = train[11]
    found = suspects(train.flatten(1).double(), samples.flatten(1).double())
    picture = neighbours_picture(samples, train, found, pairs=5)
    assert picture.shape == (5, 2, 1, 4, 4) and picture.dtype == torch.uint8
    assert torch.equal(picture[0, 0], samples[6]) and torch.equal(picture[0, 1], train[11])
    for pair, i, j in zip(picture, found.samples, found.train, strict=False):
        assert torch.equal(pair[0], samples[i]) and torch.equal(pair[1], train[j])
    save_neighbours(picture, DataSpec((1, 4, 4)), tmp_path / "pairs.png")
    assert Image.open(tmp_path / "pairs.png").size == (8 * 65 + 1, 2 * 65 + 1)
    with pytest.raises(GenzooError, match="same in the same order"):
        neighbours_picture(samples[:5], train, found)


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_mistakes_are_told():
    good = normal(60, 3)
    with pytest.raises(GenzooError, match="all training features are equal: authenticity"):
        authenticity(torch.ones(60, 3), good)
    with pytest.raises(GenzooError, match="all training features are equal: C_T"):
        data_copying(torch.ones(60, 3), good, good)
    with pytest.raises(GenzooError, match="NaN"):
        data_copying(good, good, good * torch.nan)
    with pytest.raises(GenzooError, match="width"):
        authenticity(good, normal(60, 4))
    with pytest.raises(GenzooError, match="no cell holds 20"):
        data_copying(good, good[:10], good)
    with pytest.raises(GenzooError, match="2 different training features make no 3 cells"):
        data_copying(good[:2].repeat(30, 1), good, good)
    with pytest.raises(GenzooError, match="a cell"):
        data_copying(good, good, good, cells=0)
