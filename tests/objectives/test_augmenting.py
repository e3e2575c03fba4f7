"""Augmentation before a discriminator: every pixel accounted for, the same distribution for everyone, gradients through
it."""

import pytest
import torch
from scipy import stats

from genzoo.objectives.augmenting import GROUND, HOLE, shifted_and_cut


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(b, c, h, w):
    """Images whose pixels all differ, by more than 2 from ground and hole."""
    return torch.arange(3.0, 3 + c * h * w).view(1, c, h, w).expand(b, -1, -1, -1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 16), (2, 1, 1), (1, 2, 33)])
def test_shape_and_type_stay(shape):
    x = torch.rand(5, *shape, generator=rng())
    y = shifted_and_cut(x, 1.0, rng())
    assert y.shape == x.shape and y.dtype == x.dtype
    assert shifted_and_cut(x[:0], 1.0, rng()).shape == (0, *shape)


def test_a_share_of_none_changes_nothing():
    x = torch.rand(50, 3, 8, 8, generator=rng())
    assert torch.equal(shifted_and_cut(x, 0.0, rng()), x)


def test_the_shares_are_those_asked_for():
    x = numbered(4000, 1, 16, 16)
    y = shifted_and_cut(x, 0.6, rng())
    cut = (y == HOLE).flatten(1).any(1).double().mean().item()
    assert abs(cut - 0.3) < 0.03
    moved = ((y != x) & (y != HOLE)).flatten(1).any(1).double().mean().item()
    assert abs(moved - 0.6 * 24 / 25) < 0.03  # one of 25 shifts is none


def test_every_pixel_is_shifted_ground_or_hole():
    """Against a plain loop over shifts: all that is not hole is one shift of the image over black ground."""
    x = numbered(300, 2, 8, 16)
    y = shifted_and_cut(x, 1.0, rng(1))
    counts = torch.zeros(3, 5)
    for image in y:
        fits = []
        for down in (-1, 0, 1):
            for right in (-2, -1, 0, 1, 2):
                shifted = torch.full((2, 12, 22), GROUND)
                shifted[:, 2 + down : 10 + down, 3 + right : 19 + right] = x[0]
                shifted = shifted[:, 2:10, 3:19]
                if torch.equal(torch.where(image == HOLE, HOLE, shifted), image):
                    fits.append((down + 1, right + 2))
        assert len(fits) == 1
        counts[fits[0]] += 1
    assert stats.chisquare(counts.flatten().numpy()).pvalue > 1e-3


def test_cuts_are_rectangles_of_half_the_sides():
    y = shifted_and_cut(numbered(500, 1, 8, 12), 1.0, rng(2))
    holes = (y[:, 0] == HOLE).double()
    rows, columns = holes.amax(2), holes.amax(1)
    assert torch.equal(holes, rows[:, :, None] * columns[:, None, :])
    assert rows.sum(1).max() == 4 and columns.sum(1).max() == 6
    assert (rows.diff(dim=1) > 0).sum(1).max() <= 1  # one piece
    cut = rows.any(1)
    assert (rows.sum(0) > 0).all() and abs(cut.double().mean().item() - 0.5) < 0.1


def test_every_channel_is_treated_alike_and_every_image_apart():
    x = torch.rand(64, 1, 8, 8, generator=rng()).expand(-1, 3, -1, -1)
    y = shifted_and_cut(x, 1.0, rng())
    assert torch.equal(y[:, 0], y[:, 1]) and torch.equal(y[:, 0], y[:, 2])
    same = numbered(64, 1, 8, 8)
    assert len(shifted_and_cut(same, 1.0, rng()).unique(dim=0)) > 10


def test_real_and_fake_images_see_one_distribution():
    """What happens depends on the generator alone, not on the pixels."""
    a, b = (shifted_and_cut(s * numbered(40, 1, 8, 8), 0.7, rng(5)) for s in (1.0, 2.0))
    kept = (a != GROUND) & (a != HOLE)
    assert torch.equal(torch.where(kept, 2 * a, a), b)


def test_gradients_reach_exactly_the_pixels_that_are_shown():
    x = numbered(30, 1, 8, 8).clone().requires_grad_()
    y = shifted_and_cut(x, 1.0, rng(3))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    shown = torch.stack([torch.isin(i, o) for i, o in zip(x.detach(), y.detach(), strict=True)])
    assert torch.equal(gradient, shown.float()) and 0 < shown.double().mean() < 1


def test_randomness_is_the_generators():
    x, before = numbered(20, 1, 8, 8), torch.get_rng_state()
    first, again, other = (shifted_and_cut(x, 1.0, rng(s)) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
