"""The Fréchet distance against its closed forms, SciPy's matrix square root, and what must not change it."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from genzoo.core.errors import GenzooError
from genzoo.metrics.frechet import frechet_distance, frechet_extrapolated, frechet_reference, frechet_stderr


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(n, d, seed):
    """Rows with features of unequal size, mixed, around a mean of their own."""
    mix = normal(d, d, seed=1000 + seed)
    return normal(n, d, seed=seed) * torch.logspace(-1, 1, d, dtype=torch.float64) @ mix + normal(
        d, seed=2000 + seed
    )


def by_matrix_root(a, b):
    """The formula as it stands."""
    a, b = a.numpy(), b.numpy()
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(s_a @ s_b)
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s_a) + np.trace(s_b) - 2 * np.trace(root).real


def with_moments(mean, deviations, n=101):
    """Rows `[n, d]` whose empirical mean and (diagonal) covariance are exactly these."""
    rows = normal(n, len(mean), seed=5)
    q, _ = torch.linalg.qr(rows - rows.mean(0))  # orthonormal columns, each of mean 0
    return q * (n - 1) ** 0.5 * torch.tensor(deviations) + torch.tensor(mean)


@pytest.mark.parametrize(("n", "m", "d"), [(400, 300, 8), (60, 500, 32)])
def test_equals_the_formula_with_a_matrix_square_root(n, m, d):
    a, b = correlated(n, d, seed=1), correlated(m, d, seed=2)
    assert frechet_distance(a, b) == pytest.approx(by_matrix_root(a, b), rel=1e-7)


def test_closed_form_of_diagonal_covariances():
    """sum of (difference of means)^2 and (difference of standard deviations)^2"""
    a = with_moments([0.0, 1.0, -2.0], [1.0, 2.0, 0.5])
    b = with_moments([0.5, 1.0, 1.0], [3.0, 2.0, 0.0], n=57)
    truth = 0.5**2 + 3.0**2 + (3 - 1) ** 2 + 0.5**2
    assert frechet_distance(a, b) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(400, 32), (40, 64), (2, 5)])
def test_no_distance_to_oneself(n, d):
    a = correlated(n, d, seed=3)
    size = a.var(0).sum().item()
    assert 0 <= frechet_distance(a, a) <= 1e-12 * size
    assert frechet_distance(a, a.flip(0)) <= 1e-12 * size


def test_features_of_very_unequal_size():
    """Covariances with a condition number of 1e16, which a matrix square root no longer resolves."""
    scales = torch.logspace(-4, 4, 32, dtype=torch.float64)
    a, b = normal(400, 32, seed=1) * scales, normal(400, 32, seed=2) * scales
    size = a.var(0).sum().item()
    assert frechet_distance(a, a) <= 1e-12 * size
    small = slice(0, 8)  # the small features alone: 1e-4 and more, told apart as well as large ones
    expected = frechet_distance(a[:, small] * 1e4, b[:, small] * 1e4)
    assert frechet_distance(a[:, small], b[:, small]) == pytest.approx(expected * 1e-8, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(200, 16), (30, 64)])
def test_symmetric_and_blind_to_rotation_shift_and_order(n, d):
    a, b = correlated(n, d, seed=6), correlated(2 * n, d, seed=7)
    truth = frechet_distance(a, b)
    rotation, _ = torch.linalg.qr(normal(d, d, seed=8))
    shift = normal(d, seed=9)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    assert truth > 0.1
    assert frechet_distance(b, a) == pytest.approx(truth, rel=1e-9)
    assert frechet_distance(a @ rotation + shift, b @ rotation + shift) == pytest.approx(truth, rel=1e-9)
    assert frechet_distance(a[order], b) == pytest.approx(truth, rel=1e-9)


def test_fewer_samples_than_features():
    """Rows in a subspace: turned into it, the features that are always 0 drop out, and the formula applies."""
    a, b = correlated(30, 6, seed=10), correlated(40, 6, seed=11)
    rotation, _ = torch.linalg.qr(normal(64, 64, seed=12))
    turned = [torch.cat([x, torch.zeros(len(x), 58, dtype=torch.float64)], 1) @ rotation for x in (a, b)]
    assert frechet_distance(*turned) == pytest.approx(by_matrix_root(a, b), rel=1e-7)


def test_bias_of_equal_laws():
    """To first order in 1 / n; the next term is a few per cent here."""
    n, d, repeats = 1000, 16, 40
    distances = [
        frechet_distance(normal(n, d, seed=100 + i), normal(n, d, seed=500 + i)) for i in range(repeats)
    ]
    assert frechet_reference(d, n) == pytest.approx(2 * d / n + d * (d + 1) / (2 * n))
    assert np.mean(distances) == pytest.approx(frechet_reference(d, n), rel=0.1)


def test_bias_of_unequal_numbers():
    n, m, d, repeats = 500, 4000, 12, 40
    distances = [
        frechet_distance(normal(n, d, seed=100 + i), normal(m, d, seed=500 + i)) for i in range(repeats)
    ]
    assert np.mean(distances) == pytest.approx(frechet_reference(d, n, m), rel=0.1)
    with pytest.raises(GenzooError, match="needs features and rows"):
        frechet_reference(0, 10)


def unequal_pair(n, m, d, seed):
    """Sets whose distributions have the distance 0.04 d + 0.25 d / 2."""
    scales = torch.ones(d, dtype=torch.float64)
    scales[: d // 2] = 1.5
    return normal(n, d, seed=seed), normal(m, d, seed=7000 + seed) * scales + 0.2


def test_the_extrapolated_distance_has_no_bias_and_its_error_is_right():
    n, m, d, repeats = 300, 400, 8, 60
    truth = 0.04 * d + 0.25 * d / 2
    pairs = [unequal_pair(n, m, d, seed=i) for i in range(repeats)]
    g = torch.Generator().manual_seed(0)
    found = [frechet_extrapolated(*pair, generator=g) for pair in pairs]
    values, errors = np.array([f.value for f in found]), np.array([f.stderr for f in found])
    sem = values.std(ddof=1) / repeats**0.5
    assert abs(values.mean() - truth) < 3 * sem
    plain = np.mean([f.distances[0] for f in found])
    assert plain - truth > 3 * sem and plain == pytest.approx(
        np.mean([frechet_distance(*p) for p in pairs]), rel=1e-9
    )
    assert 0.8 < errors.mean() / values.std(ddof=1) < 1.3
    assert np.mean(np.abs(values - truth) < 1.96 * errors) > 0.85


def test_the_extrapolated_distance_of_equal_laws_is_zero():
    g = torch.Generator().manual_seed(0)
    found = [
        frechet_extrapolated(normal(400, 8, seed=i), normal(400, 8, seed=900 + i), generator=g)
        for i in range(30)
    ]
    values = np.array([f.value for f in found])
    assert abs(values.mean()) < 3 * values.std(ddof=1) / 30**0.5
    assert all(abs(f.value) < 3 * f.stderr for f in found)
    assert found[0].sizes == tuple(400 // k for k in range(1, 11))
    assert np.mean([f.slope / 400 for f in found]) == pytest.approx(frechet_reference(8, 400), rel=0.5)


def test_extrapolation_is_reproducible_and_refuses_few_rows():
    pair = unequal_pair(200, 150, 6, seed=0)
    draw = [frechet_extrapolated(*pair, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert draw[0] == draw[1] and len(draw[0].sizes) == 6
    with pytest.raises(GenzooError, match="needs 128 images or more a side, got 100"):
        frechet_extrapolated(normal(100, 16, seed=0), normal(500, 16, seed=1))


@pytest.mark.parametrize(("n", "m", "d"), [(200, 500, 6), (400, 150, 2)])
def test_standard_error_is_the_deviation_over_repetitions(n, m, d):
    pairs = [unequal_pair(n, m, d, seed=i) for i in range(150)]
    deviation = np.std([frechet_distance(*p) for p in pairs], ddof=1)
    assert np.mean([frechet_stderr(*p) for p in pairs]) == pytest.approx(deviation, rel=0.2)


def test_standard_error_of_one_feature_in_closed_form():
    """(mu_a - mu_b)^2 + (s_a - s_b)^2: a row x of a moves it by 2 (mu_a - mu_b) x + (1 - s_b / s_a) (x - mu_a)^2."""
    a, b = normal(60, 1, seed=31), 0.5 * normal(45, 1, seed=32) + 1.5
    variance = 0.0
    for x, y in ((a, b), (b, a)):
        centred, ratio = x - x.mean(), (y.std() / x.std()).item()
        moves = 2 * (x.mean() - y.mean()) * centred + (1 - ratio) * centred**2
        variance += moves.var().item() / len(x)
    assert frechet_stderr(a, b) == pytest.approx(variance**0.5, rel=1e-9)


def test_standard_error_with_fewer_rows_than_features():
    a, b = correlated(30, 6, seed=10), correlated(40, 6, seed=11)
    rotation, _ = torch.linalg.qr(normal(64, 64, seed=12))
    turned = [torch.cat([x, torch.zeros(len(x), 58, dtype=torch.float64)], 1) @ rotation for x in (a, b)]
    assert frechet_stderr(*turned) == pytest.approx(frechet_stderr(a, b), rel=1e-9)


def test_a_generator_of_one_image_has_a_distance():
    varied, constant = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.full((7, 3), 5.0)
    moments = (varied.double().mean(0) - 5).square().sum() + varied.double().var(0).sum()
    assert frechet_distance(varied, constant) == pytest.approx(moments.item(), rel=1e-12)


def test_agrees_with_torch_fidelity():
    metric = pytest.importorskip("torch_fidelity.metric_fid")
    a, b = correlated(400, 16, seed=20), correlated(300, 16, seed=21)
    moments = [{"mu": x.numpy().mean(0), "sigma": np.cov(x.numpy(), rowvar=False)} for x in (a, b)]
    theirs = metric.fid_statistics_to_metric(*moments, verbose=False)
    assert frechet_distance(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_agrees_with_torchmetrics():
    metric = pytest.importorskip("torchmetrics.image.fid")
    a, b = correlated(400, 16, seed=20), correlated(300, 16, seed=21)
    theirs = metric._compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())
    assert frechet_distance(a, b) == pytest.approx(theirs.item(), rel=1e-6)


def test_agrees_with_pytorch_fid():
    metric = pytest.importorskip("pytorch_fid.fid_score")
    a, b = correlated(400, 16, seed=20).numpy(), correlated(300, 16, seed=21).numpy()
    theirs = metric.calculate_frechet_distance(
        a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)
    )
    assert frechet_distance(torch.tensor(a), torch.tensor(b)) == pytest.approx(theirs, rel=1e-6)


def test_grows_with_shift_and_contamination():
    a, b = correlated(300, 8, seed=13), correlated(300, 8, seed=14)
    shifted = [frechet_distance(a, a + s) for s in (0.0, 0.5, 1.0)]
    assert shifted == pytest.approx([0.0, 8 * 0.25, 8.0], abs=1e-9)
    mixed = [frechet_distance(a, torch.cat([a[k:], b[:k]])) for k in (0, 50, 150, 300)]
    assert mixed == sorted(mixed) and mixed[1] > 0.01


def test_type_of_the_features_does_not_matter():
    a, b = correlated(100, 8, seed=15).float(), correlated(100, 8, seed=16).float().requires_grad_()
    assert frechet_distance(a, b) == frechet_distance(a.double(), b.double())


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.zeros(1, 3), torch.zeros(5, 3), "two or more real images, got 1"),
        (torch.zeros(5, 3), torch.zeros(5, 4), "one width"),
        (torch.zeros(5), torch.zeros(5), "shape"),
        (torch.zeros(5, 3), torch.full((5, 3), torch.nan), "NaN"),
    ],
)
def test_mistakes_are_told(a, b, words):
    with pytest.raises(GenzooError, match=words):
        frechet_distance(a, b)
