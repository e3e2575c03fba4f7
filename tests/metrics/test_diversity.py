"""Vendi scores and sliced Wasserstein distances against closed forms, SciPy, POT and the authors' package."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from genzoo.core.errors import GenzooError
from genzoo.metrics.diversity import directions, sliced_wasserstein, vendi_score

ORDERS = [0.0, 0.1, 0.5, 1.0, 2.0, 50.0, math.inf]


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("q", ORDERS)
def test_vendi_of_copies_and_of_orthogonal_rows(q):
    assert vendi_score(normal(1, 7, seed=0).expand(20, 7), q=q) == pytest.approx(1, rel=1e-9)
    assert vendi_score(normal(1, 30, seed=0).expand(20, 30), q=q) == pytest.approx(1, rel=1e-9)
    rotation, _ = torch.linalg.qr(normal(12, 12, seed=1))
    assert vendi_score(3 * rotation[:8], q=q) == pytest.approx(8, rel=1e-9)
    copies = rotation[:8].repeat(5, 1)  # more rows than features: the other matrix
    assert vendi_score(copies, q=q) == pytest.approx(8, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(30, 8), (8, 30), (9, 9)])
@pytest.mark.parametrize("q", ORDERS)
def test_vendi_is_the_entropy_of_the_matrix_of_cosines(n, d, q):
    rows = normal(n, d, seed=2) + 0.5
    unit = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    shares = np.linalg.eigvalsh(unit @ unit.T / n)
    shares = shares[shares > 1e-12]
    if q == 1:
        truth = np.exp(-(shares * np.log(shares)).sum())
    else:
        truth = 1 / shares.max() if math.isinf(q) else (shares**q).sum() ** (1 / (1 - q))
    assert vendi_score(rows, q=q) == pytest.approx(truth, rel=1e-9)


def test_vendi_falls_with_its_order_and_ignores_scale_order_and_duplicates():
    rows = normal(40, 10, seed=3)
    scores = [vendi_score(rows, q=q) for q in ORDERS]
    assert scores == sorted(scores, reverse=True) and scores[0] == pytest.approx(10)
    for other in (
        rows.flip(0),
        rows * (1 + torch.arange(40))[:, None],
        rows.repeat(3, 1),
        1e-200 * rows,
        1e200 * rows,
    ):
        assert vendi_score(other) == pytest.approx(scores[3], rel=1e-9)


def test_vendi_of_uneven_groups():
    rows = torch.eye(3)[[0] * 6 + [1] * 3 + [2]]
    assert vendi_score(rows) == pytest.approx(math.exp(-sum(p * math.log(p) for p in (0.6, 0.3, 0.1))))
    assert vendi_score(rows, q=2) == pytest.approx(1 / (0.36 + 0.09 + 0.01))


def test_vendi_refuses():
    with pytest.raises(GenzooError, match="a row of zeros"):
        vendi_score(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(GenzooError, match="0 or more, got -1"):
        vendi_score(normal(5, 2, seed=0), q=-1)
    with pytest.raises(GenzooError, match="got nan"):
        vendi_score(normal(5, 2, seed=0), q=math.nan)


@pytest.mark.parametrize(("n", "d"), [(30, 8), (8, 30)])
def test_vendi_agrees_with_its_authors(n, d):
    theirs = pytest.importorskip("vendi_score.vendi")
    rows = normal(n, d, seed=4)
    unit = rows / rows.norm(dim=1, keepdim=True)
    for q in (1, 2):
        assert vendi_score(rows, q=q) == pytest.approx(theirs.score_dual(rows.numpy(), q=q), rel=1e-6)
    assert vendi_score(rows) == pytest.approx(theirs.score(unit.numpy(), np.dot), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (30, 45), (7, 1000), (2, 3)])
def test_one_dimension_is_exact(n, m):
    a, b = normal(n, 1, seed=0), 2 * normal(m, 1, seed=1) + 1
    truth = wasserstein_distance(a[:, 0].numpy(), b[:, 0].numpy())
    assert sliced_wasserstein(a, b, p=1, projections=3) == pytest.approx(truth, rel=1e-9)
    step = math.lcm(n, m)  # quantile functions on a grid that has all of their steps
    quantiles = [x[:, 0].sort().values.repeat_interleave(step // len(x)) for x in (a, b)]
    root = (quantiles[0] - quantiles[1]).square().mean().sqrt().item()
    assert sliced_wasserstein(a, b, projections=3) == pytest.approx(root, rel=1e-9)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_a_shift_moves_by_its_projections(p):
    """(E |shift . direction|^p)^(1/p); for p = 2 that is |shift| / sqrt(d)."""
    a, shift = normal(200, 6, seed=0), torch.tensor([3.0, 0, 0, 4, 0, 0], dtype=torch.float64)
    along = directions(400, 6, seeded()) @ shift
    found = sliced_wasserstein(a, a + shift, p=p, projections=400, generator=seeded())
    assert found == pytest.approx((along.abs() ** p).mean().item() ** (1 / p), rel=1e-9)
    if p == 2:
        assert found == pytest.approx(5 / 6**0.5, rel=0.1)


def test_sliced_distances_of_scaled_gaussians():
    """|s - 1| between N(0, I) and N(0, s^2 I), whatever the direction."""
    a, b = normal(20_000, 4, seed=0), 1.5 * normal(15_000, 4, seed=1)
    assert sliced_wasserstein(a, b, projections=50, generator=seeded()) == pytest.approx(0.5, rel=0.03)


def test_sliced_distances_ignore_order_shift_and_repetition():
    a, b = normal(40, 5, seed=0), normal(25, 5, seed=1) + 1
    truth = sliced_wasserstein(a, b, generator=seeded())
    for x, y in (
        (a.flip(0), b),
        (b, a),
        (a + 7, b + 7),
        (a.repeat(3, 1), b.repeat(2, 1)),
        (a.float(), b.float()),
    ):
        assert sliced_wasserstein(x, y, generator=seeded()) == pytest.approx(truth, rel=1e-6)
    assert sliced_wasserstein(a, a.flip(0)) <= 1e-10
    rotation, _ = torch.linalg.qr(normal(5, 5, seed=2))
    turned = sliced_wasserstein(a @ rotation, b @ rotation, projections=3000, generator=seeded())
    assert turned == pytest.approx(truth, rel=0.1)


def test_directions_are_unit_and_uniform():
    found = directions(20_000, 3, seeded())
    assert torch.allclose(found.norm(dim=1), torch.ones(20_000, dtype=torch.float64))
    assert torch.allclose(found.T @ found / 20_000, torch.eye(3, dtype=torch.float64) / 3, atol=0.01)
    state = torch.get_rng_state()
    directions(5, 3, seeded())
    assert torch.equal(state, torch.get_rng_state())


def test_sliced_distances_refuse():
    a = normal(5, 2, seed=0)
    for options in ({"p": 0.5}, {"p": math.inf}, {"projections": 0}):
        with pytest.raises(GenzooError, match="order 1 or more over directions"):
            sliced_wasserstein(a, a, **options)


def test_sliced_distances_agree_with_pot():
    ot = pytest.importorskip("ot")
    a, b = normal(40, 5, seed=0), normal(25, 5, seed=1) + 1
    along = directions(100, 5, seeded()).T.numpy()
    theirs = ot.sliced_wasserstein_distance(a.numpy(), b.numpy(), projections=along)
    assert sliced_wasserstein(a, b, projections=100, generator=seeded()) == pytest.approx(theirs, rel=1e-6)
