"""Fidelity, variety and typicality against closed forms, loops and sets of which it is known what they lack."""

import pytest
import torch
from scipy.stats import ks_2samp
from small_models import rng

from genzoo.core.errors import GenzooError
from genzoo.metrics.neighbours import expected_coverage, neighbour_metrics
from genzoo.metrics.typicality import fidelity, typicality, variety

N, D = 400, 6


def normal(n, seed, d=D):
    return torch.randn(n, d, generator=rng(seed), dtype=torch.float64)


def mixture(n, seed, modes=6):
    """Of six far modes, or the first of them, in equal shares."""
    return normal(n, seed) + 12 * torch.eye(D, dtype=torch.float64)[torch.arange(n) % modes]


def by_loops(real, fake):
    """Both figures, straight from the definitions."""
    n, m = len(real), len(fake)
    own = [sorted(float((p - q).norm()) for j, q in enumerate(real) if j != i) for i, p in enumerate(real)]
    far = [sorted(float((y - x).norm()) for x in real)[4] for y in fake]
    near = [min(float((x - y).norm()) for y in fake) for x in real]
    excess = [sum(f > o[4] + 1e-9 for f in far) / m - sum(p[4] > o[4] + 1e-9 for p in own) / n for o in own]
    shortfall = [
        expected_coverage(n, m, k)
        - sum(a < o[k - 1] - 1e-9 or a == 0 for a, o in zip(near, own, strict=True)) / n
        for k in range(1, 11)
    ]
    return 1 - max(0, *excess), 1 - max(0, *shortfall)


@pytest.mark.parametrize(
    "fake", [normal(25, 1), 2 * normal(25, 1), normal(30, 0)[:20], normal(2, 1).repeat(8, 1)]
)
def test_equal_to_loops(fake):
    real = normal(30, 0)
    found = neighbour_metrics(real, fake)
    assert (found.fidelity, found.variety) == pytest.approx(by_loops(real, fake), abs=1e-12)
    again = neighbour_metrics(real, fake, block_mib=1e-6)
    assert (again.fidelity, again.variety) == (found.fidelity, found.variety)


def test_points_on_a_lattice_are_equal_to_loops():
    real, fake = (torch.randint(3, (n, 3), generator=rng(n)).double() for n in (40, 35))
    found = neighbour_metrics(real, fake)
    assert (found.fidelity, found.variety) == pytest.approx(by_loops(real, fake), abs=1e-12)


def test_fidelity_is_smirnovs_distance():
    real, fake = normal(200, 0, 1).flatten(), normal(150, 1, 1).flatten() + 0.3
    # "less": the distribution function of samples lies below that of real images
    assert fidelity(real, fake) == pytest.approx(1 - ks_2samp(fake, real, alternative="less").statistic)
    assert fidelity(real, fake - 9) == 1 and fidelity(real, fake + 9) == 0
    assert fidelity(real, real) == 1


def test_the_share_of_noise_is_what_fidelity_lacks():
    """Of far outliers and no others: 1 less their share, but for the noise of finite sets."""
    real, fake = normal(N, 0), normal(N, 1)
    for share in (0.1, 0.4, 1.0):
        spoilt = fake.clone()
        spoilt[: int(share * N)] += 1000
        found = neighbour_metrics(real, spoilt).fidelity
        assert 1 - share - 0.06 < found <= 1 - share + 1e-12


def test_the_share_of_modes_is_what_variety_keeps():
    real = mixture(N, 0)
    for modes in (2, 4):
        found = neighbour_metrics(real, mixture(N, 1, modes))
        assert found.variety == pytest.approx(modes / 6, abs=0.03)
        assert found.fidelity > 0.92


def test_samples_of_the_data_get_one():
    found = [neighbour_metrics(mixture(N, 2 * s), mixture(N, 2 * s + 1)) for s in range(5)]
    assert min(f.fidelity for f in found) > 0.9 and min(f.variety for f in found) > 0.93
    assert max(f.fidelity for f in found) <= 1 and max(f.variety for f in found) <= 1


@pytest.mark.parametrize("copies", [1, 10, 100])
def test_copies_of_a_few_gain_no_fidelity_and_have_no_variety(copies):
    """Precision and density of the same sets rise in about every second case."""
    real, reference = normal(N, 0), neighbour_metrics(normal(N, 0), normal(N, 1))
    found = [neighbour_metrics(real, normal(copies, s).repeat(N // copies, 1)) for s in range(2, 8)]
    assert sum(f.fidelity for f in found) / len(found) < reference.fidelity
    assert max(f.variety for f in found) < {1: 0.05, 10: 0.2, 100: 0.8}[copies]
    # even of the evaluated images themselves
    assert neighbour_metrics(real, real[:copies].repeat(N // copies, 1)).fidelity <= 1


def test_the_midst_of_the_data_gains_nothing():
    real, shrunk = normal(N, 0), 0.5 * normal(N, 1)
    found = neighbour_metrics(real, shrunk)
    assert found.fidelity == 1 and found.density > 1.5 and found.precision > 0.97


def test_outliers_among_real_images_cost_little():
    """Precision is ruined by them: their balls hold everything."""
    real, noise = normal(N, 0), 30 * normal(N, 1)
    real[:8] = 30 * normal(8, 2)
    found = neighbour_metrics(real, noise)
    assert found.fidelity < 0.1


def test_typicality_of_real_images_is_uniform():
    """Its mean is 1/2 and its variance 1/12; of the farthest image it is 0, of the nearest 1."""
    held, images = normal(5000, 0, 1).abs().flatten(), normal(5000, 1, 1).abs().flatten()
    found = typicality(held, images)
    assert found.mean().item() == pytest.approx(0.5, abs=0.02)
    assert found.var().item() == pytest.approx(1 / 12, rel=0.05)
    ends = typicality(held, torch.tensor([0.0, 1e9]))
    assert ends.tolist() == [1.0, 0.0]
    with pytest.raises(GenzooError, match="held-out"):
        typicality(held[:0], images)


def test_variety_is_the_largest_shortfall():
    limits = torch.tensor([[1.0, 2.0, 3.0]]).expand(4, 3)
    near, expected = torch.tensor([0.5, 1.5, 2.5, 9.0]), torch.tensor([0.5, 0.75, 0.875])
    assert (
        variety(near, limits, expected) == 0.75
    )  # 1/4 of 1/2, 1/2 of 3/4, 3/4 of 7/8: at most 1/4 is missing
    assert (
        variety(torch.zeros(4), limits, expected) == 1
        and variety(torch.full((4,), 9.0), limits, expected) == 0.125
    )
