"""Kernel distances against double loops, closed forms of Gaussians, other libraries, and their errors by repetition."""

import numpy as np
import pytest
import torch

from genzoo.core.errors import GenzooError
from genzoo.metrics.kernels import (
    Cubic,
    GaussianKernel,
    gaussian_mmd,
    kid,
    kid_subsets,
    median_bandwidth,
    mmd,
    squared_distances,
)


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cubic(x, y):
    return (float(x @ y) / len(x) + 1) ** 3


def gaussian(x, y):
    return np.exp(-((x - y) ** 2).sum() / (2 * 1.7**2))


def by_loops(k, a, b):
    """The estimates as they are written, pair by pair."""
    n, m = len(a), len(b)
    within = [sum(k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j) for x in (a, b)]
    diagonals = [sum(k(row, row) for row in x) for x in (a, b)]
    cross = sum(k(x, y) for x in a for y in b) / (n * m)
    unbiased = within[0] / (n * (n - 1)) + within[1] / (m * (m - 1)) - 2 * cross
    biased = (within[0] + diagonals[0]) / n**2 + (within[1] + diagonals[1]) / m**2 - 2 * cross
    return unbiased, biased


@pytest.mark.parametrize("tile", [1, 5, 1024])
@pytest.mark.parametrize(("kernel", "naive"), [(Cubic(), cubic), (GaussianKernel(1.7), gaussian)])
def test_equals_the_sums_over_pairs(kernel, naive, tile):
    a, b = normal(13, 4, seed=0) + 0.5, 1.5 * normal(9, 4, seed=1)
    found = mmd(a, b, kernel, tile=tile)
    assert (found.value, found.biased) == pytest.approx(by_loops(naive, a.numpy(), b.numpy()), rel=1e-11)


@pytest.mark.parametrize("metric", [kid, lambda a, b: gaussian_mmd(a, b, bandwidth=2.0)])
def test_nothing_between_a_set_and_itself(metric):
    a = normal(1500, 6, seed=0) + 3
    found = metric(a, a[torch.randperm(1500, generator=torch.Generator().manual_seed(0))])
    assert 0 <= found.biased <= 1e-10 and found.value < 0


@pytest.mark.parametrize("metric", [kid, lambda a, b: gaussian_mmd(a, b, bandwidth=3.0)])
@pytest.mark.parametrize(("n", "m"), [(40, 40), (30, 90)])
def test_unbiased_and_not_too_sure_for_equal_laws(metric, n, m):
    repeats = 200
    found = [metric(normal(n, 5, seed=i), normal(m, 5, seed=10_000 + i)) for i in range(repeats)]
    values, errors = np.array([f.value for f in found]), np.array([f.stderr for f in found])
    assert abs(values.mean()) < 3 * values.std() / repeats**0.5
    assert 0.9 < np.sqrt((errors**2).mean()) / values.std() < 1.5
    assert np.mean(np.abs(values) < 1.96 * errors) > 0.93
    assert np.mean([f.biased for f in found]) > 5 * values.std() / repeats**0.5


def test_the_error_for_equal_laws_in_closed_form():
    """2 s_2 (1 / n(n - 1) + 1 / m(m - 1) + 2 / (n m)), s_2 the mean square of the doubly centred kernel.

    Of N(0, I) and bandwidth s, with E k^2 that of bandwidth s / sqrt(2) and p(x) = E k(x, x'). At least every other
    estimate has nothing but this part.
    """
    s, d, n, m = 3.0, 8, 100, 250

    def mean(s):
        return (s**2 / (s**2 + 2)) ** (d / 2)

    p_squared = (s**2 / (s**2 + 1)) ** d * ((s**2 + 1) / (s**2 + 3)) ** (d / 2)
    s_2 = mean(s / 2**0.5) - 2 * p_squared + mean(s) ** 2
    truth = 2 * s_2 * (1 / (n * (n - 1)) + 1 / (m * (m - 1)) + 2 / (n * m))
    pairs = [(normal(n, d, seed=i), normal(m, d, seed=10_000 + i)) for i in range(60)]
    found = [gaussian_mmd(*pair, bandwidth=s).stderr ** 2 for pair in pairs]
    assert np.quantile(found, 0.25) == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("metric", [kid, lambda a, b: gaussian_mmd(a, b, bandwidth=3.0)])
@pytest.mark.parametrize(("n", "m"), [(80, 80), (150, 50)])
def test_the_error_is_the_deviation_over_repetitions(metric, n, m):
    found = [metric(normal(n, 5, seed=i), normal(m, 5, seed=10_000 + i) + 0.7) for i in range(200)]
    values, errors = np.array([f.value for f in found]), np.array([f.stderr for f in found])
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.15)
    assert np.mean(np.abs(values - values.mean()) < 1.96 * errors) > 0.88


def test_closed_form_of_the_gaussian_kernel():
    """E k = (s^2 / (s^2 + 2 v))^(d / 2) exp(-|shift|^2 / (2 (s^2 + 2 v))) between normal distributions of variance
    v."""
    s, d, shift = 2.0, 3, 1.0
    plain = (s**2 / (s**2 + 2)) ** (d / 2)
    truth = 2 * plain * (1 - np.exp(-d * shift**2 / (2 * (s**2 + 2))))
    found = gaussian_mmd(normal(3000, d, seed=0), normal(3000, d, seed=1) + shift, bandwidth=s)
    assert abs(found.value - truth) < 3 * found.stderr < 0.1 * truth


def test_closed_form_of_the_cubic_kernel():
    """In one dimension 3 (m1 - n1)^2 + 3 (m2 - n2)^2 + (m3 - n3)^2 of the moments, here of N(0, 1) and N(1, 1)."""
    truth = 3 * 1 + 3 * 1 + (1 + 3) ** 2
    found = kid(normal(4000, 1, seed=0), normal(4000, 1, seed=1) + 1)
    assert abs(found.value - truth) < 3 * found.stderr < 0.2 * truth


def test_blind_to_order_rotation_and_tiles():
    a, b = normal(70, 6, seed=0) + 1, 1.3 * normal(50, 6, seed=1)
    rotation, _ = torch.linalg.qr(normal(6, 6, seed=2))
    for metric in (kid, gaussian_mmd):
        truth = metric(a, b)
        for other in (metric(a.flip(0), b.flip(0)), metric(a @ rotation, b @ rotation), metric(a, b, tile=7)):
            assert other == pytest.approx(truth, rel=1e-9)
        assert metric(a.float(), b.float()) == pytest.approx(truth, rel=1e-4)
    assert kid(b, a) == pytest.approx(kid(a, b), rel=1e-9)


def test_an_offset_costs_the_gaussian_kernel_no_digits():
    a, b = normal(70, 6, seed=0), 1.3 * normal(50, 6, seed=1)
    assert gaussian_mmd(a + 1e5, b + 1e5) == pytest.approx(gaussian_mmd(a, b), rel=1e-8)
    distances = squared_distances(a + 1e5, b + 1e5)
    assert torch.allclose(distances, (a[:, None] - b).square().sum(2), rtol=1e-9, atol=1e-8)


def test_grows_with_contamination():
    real, good, bad = normal(300, 4, seed=0), normal(300, 4, seed=1), normal(300, 4, seed=2) + 2
    for metric in (kid, gaussian_mmd):
        found = [metric(real, torch.cat([good[k:], bad[:k]])).value for k in (0, 60, 150, 300)]
        assert found == sorted(found)


def test_the_median_distance():
    rows = (
        torch.tensor([[0.0], [1.0], [3.0], [7.0]]) + 100
    )  # distances 1 2 3 4 6 7: torch's median is the lower
    assert median_bandwidth(rows) == pytest.approx(3, rel=1e-12)
    many = normal(5000, 2, seed=0)
    assert median_bandwidth(many) == pytest.approx(
        (4 * np.log(2)) ** 0.5, rel=0.03
    )  # of a Rayleigh distribution
    a, b = normal(60, 3, seed=1), normal(60, 3, seed=2) + 1
    assert gaussian_mmd(a, b) == gaussian_mmd(a, b, bandwidth=median_bandwidth(a))


def test_kid_of_subsets():
    a, b = normal(200, 4, seed=0), normal(150, 4, seed=1) + 0.5
    some, deviation = kid_subsets(b, b + 1, subsets=1, size=150)
    assert deviation == 0 and some == pytest.approx(kid(b, b + 1).value, rel=1e-9)
    values = [
        kid_subsets(a, b, subsets=30, size=50, generator=torch.Generator().manual_seed(s))[0] for s in (0, 1)
    ]
    whole = kid(a, b)
    assert values[0] != values[1] and values == pytest.approx([whole.value] * 2, abs=2 * whole.stderr)
    with pytest.raises(GenzooError, match="from 200 real and 150 generated"):
        kid_subsets(a, b)


def test_constant_features_and_mistakes():
    constant = torch.full((5, 2), 2.0)
    real = torch.tensor([[0.0, 0.0], [0.0, 0.0], [2.0, 2.0], [2.0, 2.0]])
    pairs, fakes, across = (5 * 1 + 5**3) / 6, 5**3, (1 + 5**3) / 2
    assert kid(real, constant).value == pytest.approx(pairs + fakes - 2 * across)
    with pytest.raises(GenzooError, match="all real features are equal"):
        kid(constant, constant)
    with pytest.raises(GenzooError, match="median distance, the bandwidth of the kernel, is 0"):
        gaussian_mmd(constant, normal(5, 2, seed=0))
    with pytest.raises(GenzooError, match="bandwidth of a Gaussian kernel must be above 0"):
        GaussianKernel(0.0)
    with pytest.raises(GenzooError, match="overflows"):
        kid(1e120 * normal(5, 2, seed=0), normal(5, 2, seed=0))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_rows_have_a_value_and_an_error(n):
    found = kid(normal(n, 3, seed=0), normal(n, 3, seed=1))
    assert all(np.isfinite(found)) and found.stderr > 0


def test_agrees_with_torchmetrics():
    theirs = pytest.importorskip("torchmetrics.image.kid")
    a, b = normal(60, 8, seed=0), normal(60, 8, seed=1) + 0.5
    assert kid(a, b).value == pytest.approx(theirs.poly_mmd(a, b).item(), rel=1e-9)


def test_agrees_with_torch_fidelity():
    theirs = pytest.importorskip("torch_fidelity.metric_kid")
    a, b = normal(60, 8, seed=0), normal(60, 8, seed=1) + 0.5
    own, other, cross = theirs.kernel_poly, theirs.kernel_rbf, {"kid_kernel_rbf_sigma": 2.0}
    a_, b_ = a.numpy(), b.numpy()
    for kernel, mine, extra in ((own, kid(a, b), {}), (other, gaussian_mmd(a, b, bandwidth=2.0), cross)):
        grams = [kernel(x, y, **extra) for x, y in ((a_, a_), (a_, b_), (b_, b_))]
        assert mine.value == pytest.approx(theirs.mmd2(*grams), rel=1e-9)
        assert mine.biased == pytest.approx(theirs.mmd2(*grams, mmd_est="biased"), rel=1e-9)
