"""Counting modes against counts by hand and an independent nearest neighbour; the classifier that judges samples."""

import math

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data import GaussianMixture, TensorSplit, load_data
from genzoo.evaluation.classifier import Classifier, fit_classifier
from genzoo.metrics.modes import MOST_CLASSES, Coverage, Modes


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def templates(labels, *, spread=3, shape=(1, 6, 6), seed=0):
    """Images of classes far apart: one random picture each, plus a little noise."""
    pictures = torch.randint(0, 250, (100, *shape), generator=rng(99))
    noise = torch.randint(0, spread, (len(labels), *shape), generator=rng(seed))
    return (pictures[labels] + noise).to(torch.uint8)


def even(classes, each):
    return torch.arange(classes).repeat_interleave(each)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module")
def classifier(digits):
    return fit_classifier(digits.train, digits.spec)


# --- coverage by hand ----------------------------------------------------------------------------------------------


def test_divergence_is_that_of_the_samples_from_the_data():
    found = Coverage.of(torch.tensor([30, 10, 0]), torch.tensor([0.5, 0.25, 0.25]))
    by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.25)
    assert (found.covered, found.modes) == (2, 3) and found.divergence == pytest.approx(by_hand, abs=1e-12)
    assert str(found) == "modes 2/3"


@pytest.mark.parametrize("k", [1, 3, 8])
def test_hitting_k_of_m_modes_evenly(k):
    counts = torch.zeros(8)
    counts[:k] = 40
    found = Coverage.of(counts, torch.ones(8))
    assert found.covered == k and found.divergence == pytest.approx(math.log(8 / k), abs=1e-12)


def test_a_fifth_of_the_fair_share_is_enough():
    shares = torch.tensor([0.5, 0.5])
    assert Coverage.of(torch.tensor([90, 10]), shares).covered == 2
    assert Coverage.of(torch.tensor([91, 9]), shares).covered == 1
    assert Coverage.of(torch.tensor([91, 9]), shares, least_fraction=0.0).covered == 2
    assert Coverage.of(torch.tensor([100, 0]), shares, least_fraction=0.0).covered == 1
    assert Coverage.of(torch.tensor([90, 10]), shares, samples=101).covered == 1  # one lies in no mode


def test_samples_that_hit_nothing_have_collapsed():
    found = Coverage.of(torch.zeros(4), torch.ones(4), samples=50)
    assert found.covered == 0 and found.divergence == math.inf and found.collapsed


def test_what_counts_as_collapsed():
    assert not Coverage(5, 10, 0.7).collapsed and Coverage(4, 10, 0.9).collapsed
    assert (
        not Coverage(10, 10, 0.0, dispersion=0.3).collapsed
        and Coverage(10, 10, 0.0, dispersion=0.29).collapsed
    )
    assert Coverage(10, 10, 0.0, dispersion=math.nan).collapsed


# --- modes of labelled data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4, 6])
def test_a_sampler_of_k_classes_covers_k(k):
    modes = Modes.of(TensorSplit(templates(even(6, 50)), even(6, 50)))
    samples = templates(even(k, 30), seed=1)
    assert len(modes) == 6 and torch.equal(modes.members_of(samples), even(k, 30))
    found = modes.count(samples)
    assert found.covered == k and found.divergence == pytest.approx(math.log(6 / k), abs=1e-9)
    assert found.collapsed == (k < 3)


def test_shares_are_those_of_the_data():
    labels = torch.tensor([0] * 60 + [3] * 30 + [7] * 10)  # labels need not be 0, 1, 2 ...
    modes = Modes.of(TensorSplit(templates(labels), labels))
    torch.testing.assert_close(modes.shares, torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64))
    found = modes.count(templates(torch.tensor([0] * 50 + [7] * 50), seed=1))
    by_hand = 0.5 * math.log(0.5 / 0.6) + 0.5 * math.log(0.5 / 0.1)
    assert found.covered == 2 and found.divergence == pytest.approx(by_hand, abs=1e-9)


def test_shares_are_told_as_those_of_samples_are():
    """A reference is judged by its nearest other one, as a sample in its place would be, whatever its label says."""
    images = torch.tensor([10, 12, 13]).view(3, 1, 1, 1).to(torch.uint8)
    modes = Modes.of(TensorSplit(images, torch.tensor([0, 1, 1])))
    # all three lie next to one of class 1; one is counted for class 0, which is not left without any
    assert modes.shares.tolist() == [0.25, 0.75]


def test_members_are_those_of_an_independent_nearest_neighbour(digits):
    modes = Modes.of(digits.train)
    reference = KNeighborsClassifier(1).fit(digits.train.images.flatten(1), digits.train.labels)
    expected = torch.from_numpy(reference.predict(digits.val.images.flatten(1)))
    found = modes.members_of(digits.val.images)
    assert (found == expected).double().mean() > 0.99  # ties may go either way
    assert (found == digits.val.labels).double().mean() > 0.95


def test_held_out_digits_cover_all_and_one_digit_none_but_its_own(digits):
    modes = Modes.of(digits.train)
    real = modes.count(digits.test.images)
    assert (
        real.covered == 10
        and real.divergence < 0.03
        and abs(real.dispersion - 1) < 0.03
        and not real.collapsed
    )
    point = modes.count(digits.test.images[:1].expand(100, -1, -1, -1))
    assert point.covered == 1 and point.dispersion == 0 and point.collapsed and 2 < point.divergence < 2.6
    blurred = (digits.test.images.float() * 0.2 + digits.train.images.float().mean(0) * 0.8).round().byte()
    assert modes.count(blurred).collapsed


# --- modes of unlabelled data --------------------------------------------------------------------------------------


def test_clusters_of_a_ring_are_its_gaussians():
    ring = GaussianMixture()
    modes = Modes.of(TensorSplit(ring.sample(2000, rng())), clusters=8)
    drawn = ring.sample(4000, rng(1))
    truth = torch.cdist(drawn.double(), ring.means).argmin(1)
    pairs = torch.stack([truth, modes.members_of(drawn)], 1)[
        ((drawn - ring.means[truth]).norm(dim=1) < 3 * ring.scale)
    ]
    assert len(pairs) > 3800 and len(pairs.unique(dim=0)) < 16  # nearly one to one
    whole, half = modes.count(drawn), modes.count(drawn[truth < 4])
    assert whole.covered == 8 and whole.divergence < 0.02 and not whole.collapsed
    assert half.covered == 4 and half.divergence == pytest.approx(math.log(2), abs=0.05)


def test_images_without_labels_are_clustered_and_so_are_those_of_very_many_classes():
    many = MOST_CLASSES + 1
    labels = even(many, 6)
    images = templates(labels)
    assert len(Modes.of(TensorSplit(images))) == 20 == len(Modes.of(TensorSplit(images, labels)))
    few = TensorSplit(images[labels < MOST_CLASSES], labels[labels < MOST_CLASSES])
    assert len(Modes.of(few)) == MOST_CLASSES
    modes = Modes.of(TensorSplit(images))
    assert modes.count(images).divergence == pytest.approx(0, abs=1e-9) and modes.count(images).covered == 20


def test_there_are_no_more_clusters_than_different_images():
    images = templates(even(3, 20), spread=1)  # no noise
    modes = Modes.of(TensorSplit(images))
    assert len(modes) == 3 and modes.count(images[:20]).covered == 1


# --- whatever the data ---------------------------------------------------------------------------------------------


def test_spread_is_relative_to_the_data():
    data = torch.randn(400, 5, generator=rng())
    modes = Modes.of(TensorSplit(data))
    assert modes.dispersion == pytest.approx(torch.pdist(data.double()).mean().item(), rel=1e-5)
    assert modes.count(3 * data).dispersion == pytest.approx(3, rel=1e-5)
    assert modes.count(data[:1]).dispersion == 0 and modes.count(data[:1]).collapsed


def test_samples_that_are_not_finite_hit_nothing():
    data = torch.randn(400, 5, generator=rng())
    modes = Modes.of(TensorSplit(data))
    broken = torch.full_like(data, torch.nan)
    assert modes.count(broken).covered == 0 and modes.count(broken).collapsed
    broken[:200] = data[:200]
    assert modes.count(broken).covered == 20 and modes.count(broken).dispersion == pytest.approx(1, abs=0.05)


def test_large_images_are_averaged_over_blocks():
    labels = even(4, 15)
    images = templates(labels, shape=(3, 50, 61))
    modes = Modes.of(TensorSplit(images, labels))
    assert modes.references.shape[1] == 3 * 17 * 21 and torch.equal(modes.members_of(images), labels)
    flat = torch.full((2, 3, 50, 61), 7, dtype=torch.uint8)
    flat[1] = 9
    assert Modes.of(TensorSplit(flat)).references.sort(0).values.tolist() == [[7.0] * 1071, [9.0] * 1071]


def test_modes_depend_on_the_seed_alone(digits):
    state = torch.get_rng_state()
    first, second, other = (Modes.of(digits.train, seed=s, references=300) for s in (0, 0, 1))
    assert torch.equal(first.references, second.references)
    assert not torch.equal(first.references, other.references)
    assert first.count(digits.val.images) == second.count(digits.val.images)
    assert torch.equal(torch.get_rng_state(), state)


def test_modes_refuse(digits):
    with pytest.raises(GenzooError, match="two or more images, got 1"):
        Modes.of(TensorSplit(digits.train.images[:1]))
    with pytest.raises(GenzooError, match=r"shape \[1, 4, 16\] do not fit data of \[1, 8, 8\]"):
        Modes.of(digits.train).count(digits.val.images.view(-1, 1, 4, 16))


# --- the classifier ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_digits_are_told_apart(classifier, digits):
    assert classifier.accuracy(digits.val) >= 0.96 and classifier.accuracy(digits.test) >= 0.96
    probabilities = classifier.probabilities(digits.test.images)
    assert probabilities.shape == (len(digits.test), 10)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(digits.test)))
    torch.testing.assert_close(classifier.probabilities(digits.test.images[:7]), probabilities[:7])
    assert classifier.probabilities(digits.test.images[:0]).shape == (0, 10)


def test_it_is_as_sure_as_it_is_right(classifier, digits):
    probabilities = classifier.probabilities(torch.cat([digits.val.images, digits.test.images]))
    right = probabilities.argmax(1) == torch.cat([digits.val.labels, digits.test.labels])
    assert abs(probabilities.max(1).values.mean() - right.double().mean()) < 0.03


def test_colours_of_few_levels_are_told_apart():
    labels = torch.arange(300) % 3
    images = torch.randint(0, 4, (300, 3, 9, 12), generator=rng())
    images[torch.arange(300), labels] += 1  # one channel is a level brighter
    spec = DataSpec((3, 9, 12), levels=5)
    train, held_out = TensorSplit(images[:200], labels[:200]), TensorSplit(images[200:], labels[200:])
    assert fit_classifier(train, spec, steps=60).accuracy(held_out) > 0.95


@pytest.mark.parametrize(("shape", "levels"), [((1, 8, 8), 2), ((3, 28, 28), 256), ((1, 64, 64), 256)])
def test_any_image_is_taken(shape, levels):
    images = torch.randint(0, levels, (20, *shape), generator=rng(), dtype=torch.uint8)
    found = fit_classifier(TensorSplit(images, torch.arange(20) % 4), DataSpec(shape, levels), steps=2)
    assert found.probabilities(images).shape == (20, 4)
    assert 5e4 < sum(p.numel() for p in found.network.parameters()) < 2.5e5


def test_fitting_depends_on_the_seed_alone(digits):
    state = torch.get_rng_state()
    first, second, other = (
        fit_classifier(digits.train, digits.spec, steps=5, seed=s).probabilities(digits.val.images)
        for s in (0, 0, 1)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_accuracy_is_the_share_of_labels_that_are_met():
    class Brightness(torch.nn.Module):
        """Class 1 for images brighter than the middle."""

        def forward(self, x):
            mean = x.flatten(1).mean(1)
            return torch.stack([-mean, mean], 1)

    judge = Classifier(Brightness(), DataSpec((1, 2, 2), levels=3), 2)
    images = torch.tensor([0, 0, 2, 2]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    assert judge.accuracy(TensorSplit(images, torch.tensor([0, 1, 1, 1]))) == 0.75
    expected = torch.tensor([[1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))]])
    torch.testing.assert_close(judge.probabilities(images[:1]), expected)


def test_the_classifier_refuses(classifier, digits):
    images = digits.train.images
    for split in (TensorSplit(images), TensorSplit(images, torch.zeros(len(images), 3))):
        with pytest.raises(GenzooError, match=r"class each, these have none: use labelled data$"):
            fit_classifier(split, digits.spec)
    with pytest.raises(GenzooError, match="have none"):
        classifier.accuracy(TensorSplit(images))
    with pytest.raises(GenzooError, match="real-valued"):
        fit_classifier(TensorSplit(torch.zeros(4, 2), torch.arange(4)), DataSpec((2,), levels=None))
    with pytest.raises(GenzooError, match=r"shape \[n, 1, 8, 8\]"):
        classifier.probabilities(images.expand(-1, 3, -1, -1))
