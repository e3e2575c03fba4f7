"""Are samples of the classes that were asked for, and are they as good as real images to learn the classes from?

    class accuracy                  share of samples that a classifier of real images gives to the class asked for
    classification accuracy score   accuracy on real images of a classifier trained on nothing but samples and the
                                    classes that were asked for              (Ravuri & Vinyals 2019, section 3)

The first is blind to samples that all look alike, the second is not: what the samples leave out, the classifier
does not learn. Read it beside the accuracy of the same classifier trained on as many real images.
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.random import seeded
from genzoo.core.spec import DataSpec
from genzoo.data.split import TensorSplit
from genzoo.evaluation.classifier import STEPS, Classifier, fit_classifier
from genzoo.metrics.conditioning_metrics import ClassAgreement, class_agreement
from genzoo.metrics.estimate import Estimate
from genzoo.metrics.intervals import WILSON, share_estimate
from genzoo.metrics.probes import Share, accuracy
from genzoo.models.base import GenerativeModel

if TYPE_CHECKING:
    from genzoo.data.split import Split

DRAWN = 250  # images at once
GIVEN = f"{WILSON}, for the classifier that was trained"
"""Interval of both figures."""


class AccuracyScore(NamedTuple):
    """The accuracy on real images after training on samples, and by class (NaN for classes that they do not have).

    `score` has the standard error over the real images, and over the classifiers where there are more than one.
    `n_samples` trained each classifier, `n_real` images judged it.
    """

    score: Share
    per_class: tuple[float, ...]
    n_samples: int
    n_real: int


def classification_accuracy_score(
    samples: "Split", real: "Split", spec: DataSpec, *, steps: int = STEPS, seeds: tuple[int, ...] = (0,)
) -> AccuracyScore:
    """Trains a classifier on `samples` for each of `seeds`, in `steps` batches, and judges it on `real`.

    Both are integer images of `spec` with a class each; for the real accuracy to hold it against pass as many
    training images in place of samples. Raises `GenzooError` where there are no classes or no seeds.
    """
    labels = _labels(real)
    _labels(samples)
    if not seeds:
        raise GenzooError("the accuracy score needs a classifier at least: give one seed or more")
    seen = [
        fit_classifier(samples, spec, steps=steps, seed=seed).probabilities(real.images[:]).argmax(1)
        for seed in seeds
    ]
    shares = [accuracy(found, labels) for found in seen]
    right = torch.stack([found == labels for found in seen]).double().mean(0)
    of_class = [right[labels == c].mean().item() for c in range(int(labels.max()) + 1)]
    return AccuracyScore(_pooled(shares), tuple(of_class), len(samples), len(labels))


def class_accuracy(
    model: GenerativeModel, classifier: Classifier, n: int, *, generator: torch.Generator | None = None
) -> ClassAgreement:
    """The share of `n` samples, of the classes in equal numbers, that `classifier` gives to the class asked for.

    Overall with its standard error, and by class. `generator` is on the model's device. Raises `GenzooError` for a
    model that is not class-conditional, a classifier of other classes, and fewer samples than classes.
    """
    classes = _classes(model)
    if classifier.classes != classes:
        raise GenzooError(
            f"the classifier knows {classifier.classes} classes, the model draws {classes}: train it on the "
            "run's own data"
        )
    if n < classes:
        raise GenzooError(f"class accuracy needs a sample of each of {classes} classes, got {n}")
    drawn = draw_classes(model, balanced_classes(n, classes), generator=generator)
    assert drawn.labels is not None
    return class_agreement(classifier.probabilities(drawn.images), drawn.labels)


def class_figures(
    samples: TensorSplit, real_images: TensorSplit, train: TensorSplit, spec: DataSpec, *, seed: int = 0
) -> dict[str, Estimate]:
    """Both figures of `samples`, whose labels are the classes asked for, compared with the real images `real_images`.

    `train` are training images, at least as many as samples where there are. The reference value of `class_accuracy` is
    what the classifier gets right of `real_images`, that of `accuracy_score` the same score of as many training images
    as samples. Raises `GenzooError` where a class was never asked for.
    """
    classifier = fit_classifier(train, spec, seed=seed)
    found = class_agreement(classifier.probabilities(samples.images), _labels(samples)).overall
    alike = TensorSplit(train.images[: len(samples)], _labels(train)[: len(samples)])
    score, real = (
        classification_accuracy_score(part, real_images, spec, seeds=(seed,)).score
        for part in (samples, alike)
    )
    sizes = len(samples), len(real_images)
    return {
        "class_accuracy": _figure(found, len(samples), sizes, classifier.accuracy(real_images)),
        "accuracy_score": _figure(score, len(real_images), sizes, real.value),
    }


def _figure(share: Share, images: int, sizes: tuple[int, int], reference: float) -> Estimate:
    """Of so many images that the share is of; the interval is for the classifier that there is."""
    found = share_estimate(share.value, images, stderr=share.stderr, floor=reference, interval=GIVEN)
    return replace(found, samples=sizes[0], references=sizes[1])


def draw_classes(
    model: GenerativeModel, labels: Tensor, *, generator: torch.Generator | None = None
) -> TensorSplit:
    """A sample of `model` for each of `labels`, long `[n]`, as a split with these labels, on the processor.

    For the score above they are best those of training images. Raises `GenzooError` for a model that is not
    class-conditional, for labels that are no classes of it, and for none.
    """
    classes = _classes(model)
    if labels.ndim != 1 or labels.is_floating_point() or not len(labels):
        raise GenzooError(f"samples are drawn for classes [n], got {labels.dtype} {list(labels.shape)}")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise GenzooError(
            f"the model draws classes 0..{classes - 1}, asked for {int(labels.min())}..{int(labels.max())}"
        )
    parts = [
        model.sample(len(some), some.to(model.device), generator=generator).cpu()
        for some in labels.long().split(DRAWN)
    ]
    return TensorSplit(torch.cat(parts), labels.cpu())


def balanced_classes(n: int, classes: int, seed: int = 0) -> Tensor:
    """Long `[n]`: all classes as often as each other, but for one, in an order that `seed` shuffles.

    >>> balanced_classes(7, 3).bincount().tolist()
    [3, 2, 2]
    """
    order = torch.randperm(n, generator=seeded("cpu", "balanced classes", seed))
    return (torch.arange(n) % classes)[order]


def _classes(model: GenerativeModel) -> int:
    if model.spec.cond != "class":
        raise GenzooError(
            "this model is not class-conditional, so that no class can be asked of it: train it with --cond class"
        )
    if model.spec.levels is None:
        raise GenzooError("a classifier judges integer images, this model draws real-valued data")
    return model.spec.cond_size


def _labels(split: "Split") -> Tensor:
    labels = split.labels
    if labels is None or labels.ndim != 1:
        raise GenzooError("the accuracy score needs images with a class each, these have none")
    return labels.cpu()


def _pooled(shares: list[Share]) -> Share:
    """The mean over classifiers; variances over images and over classifiers add up."""
    values = torch.tensor([share.value for share in shares], dtype=torch.float64)
    value = values.mean().item()
    seeds = values.var().item() / len(values) if len(values) > 1 else 0.0
    return Share(value, math.sqrt(shares[0].stderr ** 2 + seeds))
