"""Neighbours against loops, the prdc package and closed forms; offsets, copies and collapsed sets do them no harm."""

import math

import pytest
import torch
from small_models import rng

from genzoo.core.errors import GenzooError
from genzoo.metrics.neighbours import (
    NEAR,
    _blocks,
    _points,
    expected_coverage,
    nearest,
    nearest_others,
    neighbour_metrics,
)

LATTICE = 4  # values of a feature on it, so that many distances are equal


def normal(n, d, seed=0, scale=1.0, shift=0.0):
    return torch.randn(n, d, generator=rng(seed), dtype=torch.float64) * scale + shift


def lattice(n, d, seed=0):
    return torch.randint(LATTICE, (n, d), generator=rng(seed)).double()


def squared(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def by_loops(real, fake, k=3, k_density=5):
    """The four figures, straight from the definitions, in Python's floats."""
    real, fake = real.tolist(), fake.tolist()

    def radii(points, k):
        return [
            sorted(squared(p, q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)
        ]

    wide, narrow, own = radii(real, k_density), radii(real, k), radii(fake, k)
    cross = [[squared(r, f) for f in fake] for r in real]
    n, m = range(len(real)), range(len(fake))
    inside = [[cross[i][j] < wide[i] or cross[i][j] == 0 for j in m] for i in n]
    return (
        sum(any(cross[i][j] <= narrow[i] for i in n) for j in m) / len(m),
        sum(any(cross[i][j] <= own[j] for j in m) for i in n) / len(n),
        sum(map(sum, inside)) / (k_density * len(m)),
        sum(map(any, inside)) / len(n),
    )


CASES = {
    "shifted": (normal(60, 3), normal(50, 3, 1, 0.7, 0.5)),
    "lattice": (lattice(60, 3), lattice(50, 3, 1)),
    "copies": (normal(40, 4), normal(40, 4)[:30]),
    "itself": (normal(40, 4), normal(40, 4)),
    "collapsed": (normal(40, 2), torch.zeros(30, 2, dtype=torch.float64)),
    "repeated": (normal(8, 2).repeat(6, 1), normal(8, 2)[:4].repeat(5, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_equal_to_loops(case):
    real, fake = CASES[case]
    assert neighbour_metrics(real, fake)[:4] == pytest.approx(by_loops(real, fake), abs=1e-12)
    assert neighbour_metrics(real, fake, k=1, k_density=2)[:4] == pytest.approx(
        by_loops(real, fake, 1, 2), abs=1e-12
    )


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("d", "scale"), [(2, 1.0), (16, 0.8), (64, 1.2)])
def test_equal_to_prdc(k, d, scale):
    theirs = pytest.importorskip("prdc").compute_prdc
    real, fake = normal(300, d), normal(250, d, 1, scale, 0.1)
    expected = theirs(real.numpy(), fake.numpy(), k)
    ours = neighbour_metrics(real, fake, k=k, k_density=k)
    assert {name: getattr(ours, name) for name in expected} == pytest.approx(expected, abs=1e-12)


def test_equal_to_torch_fidelity():
    module = pytest.importorskip("torch_fidelity.metric_prc")
    real, fake = lattice(200, 4), lattice(150, 4, 1)  # its balls have surfaces too
    precision, recall = module.calculate_precision_recall_full(fake, real)
    assert neighbour_metrics(real, fake)[:2] == pytest.approx((precision, recall), abs=1e-6)


@pytest.mark.parametrize("block_mib", [1e-6, 0.003, 64.0])
def test_blocks_and_order_change_nothing(block_mib):
    real, fake = normal(150, 8), normal(130, 8, 1, 0.9)
    order, other = torch.randperm(150, generator=rng(2)), torch.randperm(130, generator=rng(3))
    expected = neighbour_metrics(real, fake)
    assert neighbour_metrics(real, fake, block_mib=block_mib) == pytest.approx(expected, abs=1e-12)
    assert neighbour_metrics(real[order], fake[other], block_mib=block_mib) == pytest.approx(
        expected, abs=1e-12
    )


def test_rotation_and_scale_change_nothing():
    real, fake = normal(150, 8), normal(130, 8, 1, 0.9)
    turn = torch.linalg.qr(normal(8, 8, 5))[0] * 1e-4
    assert neighbour_metrics(real @ turn, fake @ turn) == pytest.approx(
        neighbour_metrics(real, fake), abs=1e-12
    )


def test_large_offsets_of_float32_features():
    real = (normal(200, 16) + 1e4).float()
    fake = (normal(180, 16, 1, 0.9) + 1e4).float()
    assert neighbour_metrics(real, fake)[:4] == pytest.approx(
        neighbour_metrics(real.double() - 1e4, fake.double() - 1e4)[:4], abs=1e-12
    )
    exact = torch.cdist(real.double(), fake.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert nearest(real, fake).distances[:, 0].numpy() == pytest.approx(exact.amin(1).numpy(), rel=1e-9)


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-7, 1e-4, 1e-2])
@pytest.mark.parametrize("copies", [1, 25])
def test_distances_of_near_copies_keep_their_digits(noise, copies):
    points = normal(80, 32, shift=50.0)
    points[0] += 1e6  # an outlier moves a mean, not a median
    queries = points[:40].repeat(copies, 1) + noise * normal(40 * copies, 32, 1)
    exact = torch.cdist(queries, points, compute_mode="donot_use_mm_for_euclid_dist")
    found = nearest(queries, points, 3)
    # what is left is the rounding of the queries themselves, at 50 plus noise
    assert torch.allclose(found.distances, exact.topk(3, largest=False).values, rtol=1e-9, atol=1e-12)
    assert torch.equal(found.indices[:, 0], torch.arange(40).repeat(copies))


def test_pairs_that_are_subtracted_are_those_that_need_it():
    """Without subtraction the worst distance has an error that this test would see."""
    points = normal(100, 16)
    queries = points + math.sqrt(NEAR) * 1e-3 * normal(100, 16, 1)
    x, y = _points(queries, points)
    (_, block), *_ = _blocks(x, y, 64.0)
    exact = (queries - points).square().sum(1)
    naive = queries.square().sum(1) + points.square().sum(1) - 2 * (queries * points).sum(1)
    assert (block.diagonal() / exact - 1).abs().max() < 1e-9 < 1e-6 < (naive / exact - 1).abs().max()


def test_own_neighbours_leave_out_the_point_and_not_its_copy():
    points = torch.tensor([[0.0], [0.0], [1.0], [3.0]])
    found = nearest_others(points, 2)
    assert found.distances.tolist() == [[0, 1], [0, 1], [1, 1], [2, 3]]
    assert found.indices[:2, 0].tolist() == [1, 0]
    some = nearest_others(points, 1, only=torch.tensor([3, 1]), block_mib=1e-6)
    assert (some.distances.flatten().tolist(), some.indices.flatten().tolist()) == ([2, 0], [2, 0])


# --- closed forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "k"), [(200, 200, 5), (150, 300, 3), (300, 100, 5)])
@pytest.mark.parametrize("d", [1, 12])
def test_coverage_of_equal_laws_is_the_closed_form_and_density_one(n, m, k, d):
    found = [neighbour_metrics(normal(n, d, 2 * s), normal(m, d, 2 * s + 1), k_density=k) for s in range(40)]
    coverage = torch.tensor([f.coverage for f in found], dtype=torch.float64)
    density = torch.tensor([f.density for f in found], dtype=torch.float64)
    assert abs(coverage.mean() - expected_coverage(n, m, k)) < 4 * coverage.std() / len(found) ** 0.5
    assert abs(density.mean() - 1) < 4 * density.std() / len(found) ** 0.5


def test_expected_coverage_by_hand():
    assert expected_coverage(3, 1, 1) == pytest.approx(1 - 2 / 3)
    assert expected_coverage(10**6, 10**6) == pytest.approx(1 - 2**-5, abs=1e-5)
    assert expected_coverage(10_000, 30_000, 5) == pytest.approx(0.999, abs=1e-4)


def test_standard_errors_are_those_of_means():
    found = neighbour_metrics(normal(120, 4), normal(90, 4, 1, 0.8))
    assert found.precision_stderr == pytest.approx((found.precision * (1 - found.precision) / 90) ** 0.5)
    assert found.coverage_stderr == pytest.approx((found.coverage * (1 - found.coverage) / 120) ** 0.5)
    assert 0 < found.density_stderr < 0.3 and (found.n_real, found.n_fake) == (120, 90)


def test_a_collapsed_generator_is_precise_and_covers_little():
    centres = 6 * normal(10, 8, 9)
    real = centres[torch.arange(400) % 10] + normal(400, 8)
    whole = centres[torch.arange(400) % 10] + normal(400, 8, 1)
    one = centres[:1] + 0.5 * normal(400, 8, 2)
    good, bad = neighbour_metrics(real, whole), neighbour_metrics(real, one)
    assert bad.precision > good.precision
    assert bad.recall < 0.2 < good.recall and bad.coverage < 0.15 < 0.9 < good.coverage


def test_far_away_samples_get_nothing():
    assert neighbour_metrics(normal(50, 4), normal(50, 4, 1, shift=1e3))[:4] == (0, 0, 0, 0)


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_mistakes_are_told():
    good = normal(20, 3)
    with pytest.raises(GenzooError, match=r"5 neighbours .* 4 real features"):
        neighbour_metrics(good[:5], good)
    with pytest.raises(GenzooError, match=r"3 neighbours .* 2 generated features"):
        neighbour_metrics(good, good[:3])
    with pytest.raises(GenzooError, match="0 neighbours"):
        neighbour_metrics(good, good, k=0)
    with pytest.raises(GenzooError, match="all real features are equal"):
        neighbour_metrics(torch.ones(20, 3), good)
    with pytest.raises(GenzooError, match="width"):
        neighbour_metrics(good, normal(20, 4))
    with pytest.raises(GenzooError, match="NaN"):
        neighbour_metrics(good, torch.full((20, 3), torch.nan))
    with pytest.raises(GenzooError, match="21 neighbours"):
        nearest(good, good, 21)
    with pytest.raises(GenzooError, match="5 neighbours"):
        expected_coverage(5, 100)
