"""Shares of classes: counted by hand where classes lie far apart, intervals against scipy's."""

import pytest
import torch
from small_models import rng

from genzoo.core.errors import GenzooError
from genzoo.metrics.class_shares import by_class, class_shares
from genzoo.metrics.probes import Labelled

DIRECTIONS = torch.eye(3)


def near(classes, seed):
    """Vectors `[n, 3]` about the direction of their class."""
    noise = 0.05 * torch.randn(len(classes), 3, generator=rng(seed))
    return DIRECTIONS[classes] + noise


BANK = Labelled(near(torch.arange(90) % 3, 0), torch.arange(90) % 3)
REAL = near(torch.arange(60) % 3, 1)
STAND_IN = near(torch.arange(30) % 3, 2)


def test_shares_are_counted():
    asked = torch.tensor([0] * 20 + [1] * 10)
    found = class_shares(BANK, near(asked, 3), REAL, STAND_IN, generator=rng(0))
    assert torch.equal(found.found, asked)
    assert found.samples.tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert found.real.tolist() == pytest.approx([1 / 3] * 3)
    assert found.shift.value == pytest.approx(1 / 3) and found.shift.reference == pytest.approx(0)
    assert found.shift.low < 1 / 3 < found.shift.high
    assert (found.shift.samples, found.shift.references) == (30, 60)


def test_a_class_that_is_mixed_up_counts_for_neither_side():
    bank = Labelled(
        BANK.vectors, torch.where(BANK.labels == 2, 0, BANK.labels)
    )  # the feature extractor knows no class 2
    found = class_shares(bank, STAND_IN, REAL, STAND_IN)
    assert found.shift.value == pytest.approx(0)


@pytest.mark.parametrize("k", [0, 3, 30])
def test_intervals_are_wilsons(k):
    stats = pytest.importorskip("scipy.stats")
    asked = torch.tensor([0] * k + [1] * (30 - k))
    found = class_shares(BANK, near(asked, 3), REAL, STAND_IN).share_figures(["a", "b", "c"])
    share, expected = found["a"], stats.binomtest(k, 30).proportion_ci(method="wilson")
    assert (share.low, share.high) == pytest.approx(tuple(expected), abs=1e-4)
    assert share.value == pytest.approx(k / 30) and share.reference == pytest.approx(1 / 3)


def test_classes_without_names_are_not_listed():
    found = class_shares(BANK, STAND_IN, REAL, STAND_IN)
    assert found.share_figures(()) == {}


def test_too_few_images():
    with pytest.raises(GenzooError, match="four or more"):
        class_shares(BANK, STAND_IN[:3], REAL, STAND_IN)


def test_a_picture_of_classes_leaves_black_what_there_is_not():
    images = torch.arange(1, 6).view(5, 1, 1, 1)
    picture = by_class(images, torch.tensor([1, 0, 1, 1, 1]), rows=3, columns=2)
    assert picture.flatten(1).tolist() == [[2, 0], [1, 3], [0, 0]]
