"""Classification by likelihood: against Bayes' rule by hand on a model whose p(x|y) is known."""

import math

import pytest
import torch
from sklearn.metrics import log_loss
from small_models import rng
from torch import nn

from genzoo.core.errors import GenzooError, NoLikelihood
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.spec import DataSpec
from genzoo.data.split import TensorSplit
from genzoo.evaluation.generative_classifier import (
    ClassLikelihoods,
    calibration_error,
    class_likelihoods,
    classification,
    classify_split,
    log_posterior,
    log_prior,
)
from genzoo.evaluation.report.classification_section import classification_result
from genzoo.metrics.intervals import wilson
from genzoo.models.base import GenerativeModel

SPEC = DataSpec((1, 2, 2), levels=3, cond="class", cond_size=4)


class Known(GenerativeModel):
    """Independent pixels of the same distribution, one per class: P(v | y) = softmax(weights[y])[v].

    `noise` nats are added to each figure, drawn from the generator.
    """

    def __init__(self, spec=SPEC, kind=LikelihoodKind.EXACT, noise=0.0):
        super().__init__()
        self.spec, self.kind, self.noise, self.sizes = spec, kind, noise, []
        self.weights = nn.Parameter(torch.randn(4, 3, generator=rng(), dtype=torch.float64))

    @property
    def likelihood(self):
        return self.kind

    def loss(self, batch, turn="model", *, generator=None):
        raise AssertionError("not asked for here")

    def sample(self, n, cond=None, *, generator=None):
        p = self.weights.softmax(1).detach()[cond]
        return torch.multinomial(p, 4, True, generator=generator).view(n, 1, 2, 2).to(torch.uint8)

    def log_likelihood(self, images, cond=None, *, generator=None):
        self.sizes.append(len(images))
        table = self.weights.log_softmax(1)[cond].detach()  # [n, levels]
        nats = table.gather(1, images.flatten(1).long()).sum(1)
        nats = nats + self.noise * torch.randn(len(nats), generator=generator, dtype=torch.float64)
        return LogLikelihood(nats, self.kind, self.spec, details={"protocol": "by hand"})


def drawn(n, seed=0):
    """Images and their classes, from the model itself with the prior 0.4, 0.3, 0.2, 0.1."""
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    labels = torch.multinomial(prior, n, True, generator=rng(seed))
    return Known().sample(n, labels, generator=rng(seed + 1)), labels, prior.log()


def test_figures_are_those_of_bayes_rule():
    images, labels, prior = drawn(300)
    model = Known().train()
    found = class_likelihoods(model, images, chunk=70)
    assert model.training and model.sizes == [70, 70, 70, 70, 20] * 4
    p = model.weights.softmax(1).detach()
    by_hand = torch.stack([prior.exp()[y] * p[y][images.flatten(1).long()].prod(1) for y in range(4)], 1)
    posterior = by_hand / by_hand.sum(1, keepdim=True)
    torch.testing.assert_close(log_posterior(found.nats, prior).exp(), posterior)
    result = classification(found, labels, prior)
    right = (posterior.argmax(1) == labels).double()
    assert result.accuracy == right.mean().item()
    assert result.accuracy_stderr == pytest.approx(right.std().item() / 300**0.5)
    assert result.nll == pytest.approx(log_loss(labels, posterior.numpy(), labels=range(4)))
    assert result.confidence == pytest.approx(posterior.max(1).values.mean().item())
    assert (result.kind, result.images, result.classes) == (LikelihoodKind.EXACT, 300, 4)
    stored = classification_result("test", result, "test", 0)
    assert stored.kind == "EXACT" and stored.details == result.details == {"protocol": "by hand"}
    assert stored.accuracy.value == result.accuracy and stored.accuracy.stderr is None
    low, high = wilson(result.accuracy, 300)
    assert (stored.accuracy.low, stored.accuracy.high) == pytest.approx((low, high))
    uniform = classification(found, labels)
    assert uniform.nll > result.nll  # the prior is part of the truth here


def test_the_right_posterior_is_calibrated_and_a_sharper_one_is_not():
    images, labels, prior = drawn(20_000)
    found = class_likelihoods(Known(), images, chunk=20_000)
    assert classification(found, labels, prior).calibration_error < 0.015
    sharper = ClassLikelihoods(4 * found.nats, found.kind)
    assert classification(sharper, labels, prior).calibration_error > 0.15


def test_calibration_error_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 1])
    # sorted by confidence: 0.6 right, 0.7 right | 0.8 wrong, 0.9 right
    two = (abs(0.4 + 0.3) + abs(-0.8 + 0.1)) / 4
    assert calibration_error(p.log(), labels, bins=2) == pytest.approx(two)
    one = abs(0.75 - 0.75)
    assert calibration_error(p.log(), labels, bins=1) == pytest.approx(one)
    every = (0.4 + 0.3 + 0.8 + 0.1) / 4
    assert calibration_error(p.log(), labels, bins=4) == pytest.approx(every)
    assert calibration_error(p.log(), labels, bins=99) == pytest.approx(every)
    certain = torch.tensor([[0.0, -math.inf]] * 3)
    assert calibration_error(certain, torch.zeros(3, dtype=torch.long)) == 0


def test_all_classes_see_the_same_noise():
    """Noise that is common to the classes cancels; independent noise of this size would ruin the posterior."""
    images, labels, prior = drawn(400)
    quiet = classification(class_likelihoods(Known(), images), labels, prior)
    loud = class_likelihoods(Known(noise=50.0), images, generator=rng(7))
    assert classification(loud, labels, prior).accuracy == quiet.accuracy
    assert classification(loud, labels, prior).nll == pytest.approx(quiet.nll)
    other = class_likelihoods(Known(noise=50.0), images, generator=rng(8))
    assert not torch.allclose(loud.nats, other.nats)


def test_priors():
    assert log_prior(None, 4).exp().tolist() == [0.25] * 4
    assert log_prior(torch.tensor([2, 2, 1]), 3).exp().tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_a_split_in_parts_and_in_time():
    images, labels, prior = drawn(130)
    split, order = TensorSplit(images, labels), torch.randperm(130, generator=rng())
    whole = classify_split(Known(), split, order, prior=prior, chunk=40)
    expected = classification(class_likelihoods(Known(), images[order]), labels[order], prior)
    assert whole == expected
    assert classify_split(Known(), split, order, chunk=40, max_seconds=0.0).images == 40


def test_bounds_are_named_and_the_worst_kind_counts():
    images, labels, _ = drawn(20)
    found = classification(class_likelihoods(Known(kind=LikelihoodKind.LOWER_BOUND), images), labels)
    assert (
        found.kind is LikelihoodKind.LOWER_BOUND
        and classification_result("t", found, "t", 0).kind == "LOWER_BOUND"
    )


def test_mistakes_are_named():
    images, labels, _ = drawn(5)
    with pytest.raises(NoLikelihood, match="without likelihood"):
        class_likelihoods(Known(kind=LikelihoodKind.NONE), images)
    with pytest.raises(GenzooError, match="--cond class"):
        class_likelihoods(Known(DataSpec((1, 2, 2), 3)), images)
    with pytest.raises(GenzooError, match="no images"):
        class_likelihoods(Known(), images[:0])
    with pytest.raises(GenzooError, match="no labels"):
        classify_split(Known(), TensorSplit(images), torch.arange(5))
    found = class_likelihoods(Known(), images)
    with pytest.raises(GenzooError, match="5 images and 4 labels"):
        classification(found, labels[:4])
    with pytest.raises(GenzooError, match=r"0\.\.3, found"):
        classification(found, labels + 4)
    with pytest.raises(GenzooError, match="no finite likelihood"):
        classification(ClassLikelihoods(torch.full((5, 4), -math.inf), LikelihoodKind.EXACT), labels)
