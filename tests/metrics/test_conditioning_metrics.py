"""Figures of conditioned samples: against loops over all pairs, scipy and scikit-learn, at bounds and at ties."""

import math

import pytest
import torch
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score
from small_models import rng

from genzoo.core.errors import GenzooError
from genzoo.metrics import conditioning_metrics as conditioning_figures
from genzoo.metrics.conditioning_metrics import class_agreement, closeness, cosine, variation_auc


def features(n=9, k=3, d=4, seed=0):
    """Small integers, so that ties are many, with variations that lean towards their image."""
    images = torch.randint(-2, 3, (n, d), generator=rng(seed)).double()
    noise = torch.randint(-2, 3, (n, k, d), generator=rng(seed + 1)).double()
    return images, images[:, None] + noise


def similarity_of(a, b, kind):
    if kind == "closeness":
        return -sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True))
    a, b = a.tolist(), b.tolist()
    lengths = math.hypot(*a) * math.hypot(*b)
    return round(sum(x * y for x, y in zip(a, b, strict=True)) / lengths, 12) if lengths else 0.0


def scores(images, variations, groups, kind):
    """For each image with rivals: similarities of its own variations and of the others'."""
    n = len(images)
    for i in range(n):
        own = [similarity_of(images[i], v, kind) for v in variations[i]]
        rivals = [j for j in range(n) if j != i and (groups is None or groups[j] == groups[i])]
        others = [similarity_of(images[i], v, kind) for j in rivals for v in variations[j]]
        if others:
            yield own, others


def pairwise_auc(own, others):
    wins = sum((a > b) + 0.5 * (a == b) for a in own for b in others)
    return float(wins) / (len(own) * len(others))


GROUPS = torch.tensor([0, 1, 0, 2, 1, 1, 0, 0, 1])  # the fourth image is alone in its group


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_auc_is_the_mean_over_images_of_all_pairs(groups):
    images, variations = features()
    found = variation_auc(images, variations, groups=groups, similarity=closeness)
    each = [pairwise_auc(*s) for s in scores(images, variations, groups, "closeness")]
    assert found.images == len(each) == (9 if groups is None else 8)
    mean = sum(each) / len(each)
    error = math.sqrt(sum((a - mean) ** 2 for a in each) / (len(each) - 1) / len(each))
    assert found.value == pytest.approx(mean, abs=1e-12) and found.stderr == pytest.approx(error, abs=1e-12)


def test_auc_of_an_image_is_that_of_scipy_and_scikit_learn():
    images, variations = features(n=12, seed=5)
    ties = 0
    found = []
    for own, others in scores(images, variations, None, "closeness"):
        u = mannwhitneyu(own, others).statistic / (len(own) * len(others))
        assert u == pytest.approx(roc_auc_score([1] * len(own) + [0] * len(others), own + others))
        ties += len(set(own) & set(others))
        found.append(u)
    assert ties > 0
    value = variation_auc(images, variations, similarity=closeness).value
    assert value == pytest.approx(sum(found) / len(found), abs=1e-12)


def test_auc_of_cosines_and_its_independence_of_lengths():
    images, variations = torch.randn(8, 5, generator=rng()), torch.randn(8, 2, 5, generator=rng(1))
    each = [pairwise_auc(*s) for s in scores(images, variations, None, "cosine")]
    expected = pytest.approx(sum(each) / 8, abs=1e-12)
    assert variation_auc(images, variations).value == expected
    lengths = 0.1 + torch.rand(8, 2, 1, generator=rng(2))
    assert variation_auc(7.0 * images, lengths * variations).value == expected


def test_bounds_chance_and_ties():
    """Copies of the images are told surely, their opposites never; where all are alike there is nothing to tell."""
    images = torch.eye(6)
    copies = images[:, None].repeat(1, 3, 1)
    assert variation_auc(images, copies)[:2] == (1.0, 0.0)
    assert variation_auc(images, -copies)[:2] == (0.0, 0.0)
    alike = torch.ones(6, 3, 6)
    assert variation_auc(images, alike)[:2] == (0.5, 0.0)
    assert variation_auc(images, torch.zeros(6, 3, 6)).value == 0.5  # collapsed: no direction at all
    large = torch.randn(200, 8, generator=rng())
    unrelated = variation_auc(large, torch.randn(200, 2, 8, generator=rng(1)))
    assert abs(unrelated.value - 0.5) < 4 * unrelated.stderr and 0.005 < unrelated.stderr < 0.03


def test_groups_take_away_what_the_group_alone_tells():
    """Variations that know the class and nothing else: sure between classes, chance within."""
    classes = torch.arange(100) % 2
    centres = 10.0 * torch.eye(2)[classes]
    images = centres + torch.randn(100, 2, generator=rng())
    variations = centres[:, None] + torch.randn(100, 3, 2, generator=rng(1))
    overall = variation_auc(images, variations, similarity=closeness)
    within = variation_auc(images, variations, groups=classes, similarity=closeness)
    assert overall.value == pytest.approx(0.75, abs=0.03)  # half of the rivals are of the other class
    assert within.value == pytest.approx(0.5, abs=0.05)


def test_chunks_change_nothing(monkeypatch):
    images, variations = features(n=11, seed=3)
    whole = variation_auc(images, variations)
    monkeypatch.setattr(conditioning_figures, "MOST_AT_ONCE", 70)  # two rows of 33
    assert variation_auc(images, variations) == whole


def test_similarities_of_pairs():
    a, b = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[6.0, 8.0], [-4.0, 3.0], [0.0, 1.0]])
    torch.testing.assert_close(cosine(a, b), torch.tensor([[1.0, 0.0, 0.8], [0.0, 0.0, 0.0]]).double())
    assert closeness(a, b).tolist() == [[-25.0, -50.0, -18.0], [-100.0, -25.0, -1.0]]
    pixels = torch.randint(256, (4, 3000), generator=rng(), dtype=torch.uint8)
    assert closeness(pixels, pixels).diagonal().tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("images", "variations", "groups", "words"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 2), None, r"\[n, k, d\]"),
        (torch.zeros(3, 2), torch.zeros(3, 0, 2), None, r"\[n, k, d\]"),
        (torch.zeros(3, 2), torch.zeros(4, 1, 2), None, "do not go together"),
        (torch.zeros(3, 2), torch.zeros(3, 1, 5), None, "do not go together"),
        (torch.zeros(3, 2), torch.zeros(3, 1, 2), torch.zeros(2), "do not go together"),
        (torch.zeros(1, 2), torch.zeros(1, 1, 2), None, "2 images or more"),
        (torch.full((3, 2), math.nan), torch.zeros(3, 1, 2), None, "NaN"),
        (torch.zeros(3, 2), torch.full((3, 1, 2), math.inf), None, "NaN"),
        (torch.zeros(3, 2), torch.zeros(3, 1, 2), torch.arange(3), "take more images"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(images, variations, groups, words):
    with pytest.raises(GenzooError, match=words) as error:
        variation_auc(images, variations, groups=groups)
    assert "\n" not in str(error.value)


# --- classes -------------------------------------------------------------------------------------------------------


def test_agreement_with_the_class_asked_for():
    asked = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    seen = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    found = class_agreement(torch.nn.functional.one_hot(seen, 3) * 0.5 + 0.1, asked)
    assert found.overall.value == 0.75
    assert found.overall.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 8))
    assert found.shares == (0.75, 0.5, 1.0) and found.worst == 1


@pytest.mark.parametrize(
    ("probabilities", "asked", "words"),
    [
        (torch.ones(3, 2), torch.tensor([0, 1]), "a class each"),
        (torch.ones(3), torch.tensor([0, 1, 1]), "a class each"),
        (torch.ones(2, 2), torch.tensor([0.0, 1.0]), "a class each"),
        (torch.ones(2, 3), torch.tensor([0, 1]), "asked for at least once"),
        (torch.ones(2, 2), torch.tensor([0, 0]), "asked for at least once"),
        (torch.ones(3, 2), torch.tensor([0, 1, 2]), "asked for at least once"),
        (torch.full((2, 2), math.nan), torch.tensor([0, 1]), "NaN"),
    ],
)
def test_classes_that_do_not_fit_are_refused(probabilities, asked, words):
    with pytest.raises(GenzooError, match=words):
        class_agreement(probabilities, asked)
