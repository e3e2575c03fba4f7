"""Barlow Twins and VICReg against loops, the other library, and statistics that are known."""

import math

import pytest
import torch

from genzoo.core.errors import GenzooError
from genzoo.objectives.redundancy import BarlowTwins, VICReg


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def views(n=8, d=4, seed=0):
    return torch.randn(2, n, d, generator=rng(seed), dtype=torch.float64).unbind()


def column(z, i):
    values = z[:, i].tolist()
    mean = sum(values) / len(values)
    return [v - mean for v in values]


def dot(x, y):
    return sum(p * q for p, q in zip(x, y, strict=True))


def white(n, d):
    """Embeddings with mean 0, standard deviation 1 (of n - 1) and no covariance."""
    q = torch.linalg.qr(torch.cat([torch.ones(n, 1), torch.randn(n, d, generator=rng())], 1).double()).Q
    return q[:, 1:] * math.sqrt(n - 1)


def test_barlow_twins_by_a_loop():
    a, b = views()
    loss = 0.0
    for i in range(4):
        for j in range(4):
            x, y = column(a, i), column(b, j)
            # equation 2, with the published code's 1e-5 beside each variance
            c = dot(x, y) / 8 / math.sqrt(dot(x, x) / 8 + 1e-5) / math.sqrt(dot(y, y) / 8 + 1e-5)
            loss += (1 - c) ** 2 if i == j else 0.01 * c**2
    assert BarlowTwins(0.01)(a, b).tolist() == pytest.approx([loss] * 8, rel=1e-9)


def test_vicreg_by_a_loop():
    a, b = views()
    shared = 0.0
    for z in (a, b):
        columns = [column(z, i) for i in range(4)]
        shared += sum(3 * max(0, 1 - math.sqrt(dot(x, x) / 7 + 1e-4)) for x in columns) / 4 / 2
        shared += (
            sum(0.5 * (dot(columns[i], columns[j]) / 7) ** 2 for i in range(4) for j in range(4) if i != j)
            / 4
        )
    wanted = [2 * dot((x - y).tolist(), (x - y).tolist()) / 4 + shared for x, y in zip(a, b, strict=True)]
    assert VICReg(2.0, 3.0, 0.5)(a, b).tolist() == pytest.approx(wanted, rel=1e-9)


def test_lightly_agrees():
    losses = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    a, b = views(32)
    for ours, theirs in (
        (BarlowTwins(), losses.BarlowTwinsLoss()),
        (VICReg(), losses.VICRegLoss()),
        (VICReg(1.0, 2.0, 3.0), losses.VICRegLoss(1.0, 2.0, 3.0)),
    ):
        torch.testing.assert_close(ours(a, b).mean(), theirs(a, b))


def test_white_and_equal_views_are_the_optimum():
    z = white(16, 5)
    assert BarlowTwins()(z, z)[0].item() == pytest.approx(0, abs=1e-8)
    assert VICReg()(z, z).abs().max().item() == pytest.approx(0, abs=1e-8)


def test_collapse_costs_what_it_should():
    """All images alike: every dimension is dead. One dimension copied: they are redundant."""
    dead = torch.ones(16, 5, dtype=torch.float64)
    assert BarlowTwins()(dead, dead)[0].item() == pytest.approx(5)
    assert VICReg()(dead, dead)[0].item() == pytest.approx(25 * (1 - 0.01))
    copied = white(16, 1).repeat(1, 5)
    assert BarlowTwins(0.01)(copied, copied)[0].item() == pytest.approx(0.01 * 20, rel=1e-3)
    assert VICReg()(copied, copied)[0].item() == pytest.approx(2 * 20 / 5)


def test_independent_views_have_no_correlation():
    a, b = white(32, 10).chunk(2, 1)
    assert BarlowTwins()(a, b)[0].item() == pytest.approx(5)


def test_barlow_twins_ignores_scale_and_offset():
    a, b = (100 * v for v in views())
    scales, offset = torch.tensor([1.0, 7.0, 0.5, 3.0]).double(), torch.tensor([5.0, -2.0, 0.0, 9.0]).double()
    torch.testing.assert_close(BarlowTwins()(a * scales, b + offset), BarlowTwins()(a, b), rtol=1e-6, atol=0)


def test_vicreg_ignores_a_common_offset_only():
    a, b = views()
    torch.testing.assert_close(VICReg()(a + 3, b + 3), VICReg()(a, b))
    assert not torch.allclose(VICReg()(a + 3, b), VICReg()(a, b))
    assert not torch.allclose(VICReg()(2 * a, 2 * b), VICReg()(a, b))


def test_the_invariance_is_each_image_s_own():
    a, b = views()
    changed = b.clone()
    changed[3] += 1
    only = VICReg(1.0, 0.0, 0.0)
    assert (only(a, changed) != only(a, b)).nonzero().tolist() == [[3]]
    shared = VICReg(0.0, 1.0, 1.0)(a, b)
    assert shared.min() == shared.max() and BarlowTwins()(a, b).unique().numel() == 1


def test_gradients_spread_what_is_narrow_and_join_views():
    z = (0.1 * white(16, 3)).requires_grad_()
    (g,) = torch.autograd.grad(VICReg(0.0, 1.0, 0.0)(z, z.detach()).mean(), z)
    assert ((g * z) < 0).all()  # downhill is outward
    a, b = white(16, 3).requires_grad_(), white(16, 3) + 0.5
    (g,) = torch.autograd.grad(VICReg(1.0, 0.0, 0.0)(a, b).mean(), a)
    assert (g < 0).all()  # towards b


def test_a_single_image():
    """No variance and no correlation: both are charged in full."""
    a, b = (v[:1] for v in views())
    assert BarlowTwins()(a, b).tolist() == [4.0]
    own = 25 * (a - b).square().mean().item()
    assert VICReg()(a, b).tolist() == pytest.approx([own + 25 * 0.99])


def test_settings_that_make_no_sense_are_refused():
    for make, message in (
        (lambda: BarlowTwins(-1.0), "redundancy of BarlowTwins"),
        (lambda: BarlowTwins(eps=0.0), "eps of BarlowTwins must be above 0"),
        (lambda: VICReg(-1.0), "weights of VICReg"),
        (lambda: VICReg(eps=0.0), "eps of VICReg must be above 0"),
    ):
        with pytest.raises(GenzooError, match=message):
            make()
