"""Learning classes from samples: real images in their place do as well as real ones, wrong labels as chance."""

import pytest
import torch
from small_models import rng
from torch import nn

from genzoo.core.errors import GenzooError
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.spec import DataSpec
from genzoo.data import TensorSplit, load_data
from genzoo.evaluation.accuracy_score import (
    balanced_classes,
    class_accuracy,
    classification_accuracy_score,
    draw_classes,
)
from genzoo.evaluation.classifier import fit_classifier
from genzoo.models.base import GenerativeModel, ModelConfig

STEPS = 120
CLASSES = 10


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", cond="class")


@pytest.fixture(scope="module")
def judge(digits):
    return fit_classifier(digits.train, digits.spec, steps=STEPS)


@pytest.fixture(scope="module")
def clear(digits, judge):
    """The training images whose class the judge sees."""
    right = judge.probabilities(digits.train.images).argmax(1) == digits.train.labels
    return TensorSplit(digits.train.images[right], digits.train.labels[right])


class Resampler(GenerativeModel):
    """Draws images of a split that have the class asked for, or the next one with the chance `wrong`."""

    config: ModelConfig

    def __init__(self, split, spec, wrong=0.0):
        super().__init__()
        self.spec, self.split, self.wrong = spec, split, wrong
        self.anchor = nn.Parameter(torch.zeros(()))

    @property
    def likelihood(self):
        return LikelihoodKind.NONE

    def loss(self, batch, turn="model", *, generator=None):
        raise AssertionError

    def log_likelihood(self, images, cond=None, *, generator=None):
        raise AssertionError

    def sample(self, n, cond=None, *, generator=None):
        assert cond is not None and len(cond) == n
        off = (torch.rand(n, generator=generator) < self.wrong).long()
        rows = []
        for c in ((cond + off) % CLASSES).tolist():
            own = (self.split.labels == c).nonzero().flatten()
            rows.append(own[torch.randint(len(own), (), generator=generator)])
        return self.split.images[torch.stack(rows)]


def test_real_images_in_place_of_samples_give_the_real_accuracy(digits, judge):
    found = classification_accuracy_score(digits.train, digits.test, digits.spec, steps=STEPS)
    assert found.score.value == judge.accuracy(digits.test)  # the same classifier, as seeds are equal
    assert found.score.value > 0.85 and (found.n_samples, found.n_real) == (
        len(digits.train),
        len(digits.test),
    )
    labels = digits.test.labels
    right = judge.probabilities(digits.test.images).argmax(1) == labels
    assert found.per_class == pytest.approx(
        [right[labels == c].double().mean().item() for c in range(CLASSES)]
    )
    assert found.score.stderr == pytest.approx(
        (found.score.value * (1 - found.score.value) / len(labels)) ** 0.5
    )


def test_shuffled_labels_give_chance(digits):
    shuffled = digits.train.labels[torch.randperm(len(digits.train), generator=rng())]
    wrong = TensorSplit(digits.train.images, shuffled)
    found = classification_accuracy_score(wrong, digits.test, digits.spec, steps=STEPS)
    assert found.score.value < 0.3


def test_a_class_that_is_never_drawn_is_never_learned(digits):
    kept = digits.train.labels != 4
    part = TensorSplit(digits.train.images[kept], digits.train.labels[kept])
    found = classification_accuracy_score(part, digits.test, digits.spec, steps=STEPS)
    assert found.per_class[4] == 0 and min(found.per_class[:4]) > 0.7


def test_samples_that_all_look_alike_teach_less_than_they_agree(digits, judge, clear):
    """The score sees what class accuracy is blind to."""
    first = torch.stack([(clear.labels == c).nonzero()[0, 0] for c in range(CLASSES)])
    one_each = Resampler(TensorSplit(clear.images[first], torch.arange(CLASSES)), digits.spec)
    assert class_accuracy(one_each, judge, 100).overall.value == 1
    drawn = draw_classes(one_each, digits.train.labels)
    assert classification_accuracy_score(drawn, digits.test, digits.spec, steps=60).score.value < 0.75


def test_seeds_are_averaged_and_widen_the_error(digits):
    one, two, both = (
        classification_accuracy_score(digits.train, digits.test, digits.spec, steps=20, seeds=seeds)
        for seeds in ((0,), (1,), (0, 1))
    )
    values = torch.tensor([one.score.value, two.score.value], dtype=torch.float64)
    assert values[0] != values[1] and both.score.value == pytest.approx(values.mean().item())
    expected = (one.score.stderr**2 + values.var().item() / 2) ** 0.5
    assert both.score.stderr == pytest.approx(expected)
    assert both.per_class == pytest.approx(
        [(a + b) / 2 for a, b in zip(one.per_class, two.per_class, strict=True)]
    )


@pytest.mark.parametrize("wrong", [0.0, 0.3, 1.0])
def test_class_accuracy_is_the_share_of_right_classes(digits, judge, clear, wrong):
    found = class_accuracy(Resampler(clear, digits.spec, wrong), judge, 400, generator=rng())
    assert abs(found.overall.value - (1 - wrong)) <= 4 * found.overall.stderr
    assert len(found.shares) == CLASSES
    assert found.overall.value == pytest.approx(
        sum(found.shares) / CLASSES
    )  # as the classes are equally many


def test_draws_have_the_classes_asked_for_and_follow_the_generator(digits):
    model, labels = Resampler(digits.train, digits.spec), torch.arange(300) % CLASSES
    a, b, c = (draw_classes(model, labels, generator=rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(a.images, b.images) and not torch.equal(a.images, c.images)
    assert torch.equal(a.labels, labels) and a.images.shape == (300, 1, 8, 8)
    lots = balanced_classes(25, 10)
    assert sorted(lots.bincount().tolist()) == [2] * 5 + [3] * 5 and torch.equal(
        lots, balanced_classes(25, 10)
    )


def test_mistakes_are_told(digits, judge):
    free = DataSpec(digits.spec.shape, digits.spec.levels)
    with pytest.raises(GenzooError, match=r"not class-conditional.*--cond class"):
        class_accuracy(Resampler(digits.train, free), judge, 100)
    with pytest.raises(GenzooError, match="not class-conditional"):
        draw_classes(Resampler(digits.train, free), torch.arange(4))
    model = Resampler(digits.train, digits.spec)
    with pytest.raises(GenzooError, match="each of 10 classes, got 9"):
        class_accuracy(model, judge, 9)
    with pytest.raises(GenzooError, match=r"0\.\.9, asked for 3\.\.10"):
        draw_classes(model, torch.tensor([3, 10]))
    with pytest.raises(GenzooError, match=r"classes \[n\]"):
        draw_classes(model, torch.zeros(3))
    other = fit_classifier(TensorSplit(digits.train.images, digits.train.labels % 3), digits.spec, steps=1)
    with pytest.raises(GenzooError, match="knows 3 classes, the model draws 10"):
        class_accuracy(model, other, 100)
    bare = TensorSplit(digits.train.images)
    with pytest.raises(GenzooError, match="none"):
        classification_accuracy_score(bare, digits.test, digits.spec, steps=1)
    with pytest.raises(GenzooError, match="none"):
        classification_accuracy_score(digits.train, bare, digits.spec, steps=1)
    with pytest.raises(GenzooError, match="seed"):
        classification_accuracy_score(digits.train, digits.test, digits.spec, seeds=())
