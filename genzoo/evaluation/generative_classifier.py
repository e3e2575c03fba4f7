"""A class-conditional model as a classifier: argmax_y log p(x|y) + log p(y), and how far its posterior can be trusted.

Bayes' rule gives log p(y|x) = log p(x|y) + log p(y) - log sum_y' p(x|y') p(y'). With bounds in place of
likelihoods this is no posterior any more but still a classifier; the kind is reported. No temperature is fitted:
what is measured is the posterior that the model's own likelihoods imply.
"""

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError, NoLikelihood
from genzoo.core.log_likelihood import LikelihoodKind, LogLikelihood
from genzoo.core.trainable import evaluating
from genzoo.models.base import GenerativeModel

if TYPE_CHECKING:
    from genzoo.data.split import Split

BINS = 15
"""Groups of equally many images that the calibration error compares."""


@dataclass(frozen=True)
class ClassLikelihoods:
    """log p(x|y) in nats, float64 `[n, classes]`, of the worst `kind` among them."""

    nats: Tensor
    kind: LikelihoodKind
    details: dict[str, Any] = field(default_factory=dict)


def class_likelihoods(
    model: GenerativeModel, images: Tensor, *, chunk: int = 100, generator: torch.Generator | None = None
) -> ClassLikelihoods:
    """log p(x|y) of integer `images` `[n, c, h, w]` under every class, `chunk` images of one class at a time.

    All classes see the same random numbers (from `generator`, on the model's device), so that noise of a stochastic
    likelihood cancels in comparisons. Raises `NoLikelihood` where the family has none, `GenzooError` for a model
    without classes.
    """
    check_classifies(model)
    if len(images) == 0:
        raise GenzooError("there are no images to classify")
    seed = _seed_from(generator)
    columns: list[LogLikelihood] = []
    with evaluating(model):
        for label in range(model.spec.cond_size):
            common = None if seed is None else torch.Generator(model.device).manual_seed(seed)
            columns.append(_of_class(model, images, label, chunk, common))
    nats = torch.stack([column.nats for column in columns], 1)
    kind = min([model.likelihood, *(column.kind for column in columns)])
    return ClassLikelihoods(nats, kind, columns[0].details)


def check_classifies(model: GenerativeModel) -> None:
    """Raises `NoLikelihood` or `GenzooError` where a model cannot classify."""
    if model.likelihood is LikelihoodKind.NONE:
        raise NoLikelihood("a model without likelihood cannot classify by it: evaluate another family")
    if model.spec.cond != "class":
        raise GenzooError("only class-conditional models classify: train with --cond class")


def _of_class(
    model: GenerativeModel, images: Tensor, label: int, chunk: int, generator: torch.Generator | None
) -> LogLikelihood:
    parts = []
    for part in images.split(chunk):
        cond = torch.full((len(part),), label, device=model.device)
        parts.append(model.log_likelihood(part.to(model.device), cond, generator=generator))
    return LogLikelihood.cat(parts)


def _seed_from(generator: torch.Generator | None) -> int | None:
    if generator is None:
        return None
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


# --- from likelihoods to a posterior -------------------------------------------------------------------------


def log_prior(labels: Tensor | None, classes: int) -> Tensor:
    """log p(y) float64 `[classes]` from training labels long `[n]`, one added to every count; uniform without.

    >>> log_prior(torch.tensor([0, 0, 1]), 2).exp().tolist()
    [0.6, 0.4]
    """
    if labels is None:
        return torch.full((classes,), -math.log(classes), dtype=torch.float64)
    counts = torch.bincount(labels.cpu(), minlength=classes).double() + 1
    return (counts / counts.sum()).log()


def log_posterior(nats: Tensor, prior: Tensor) -> Tensor:
    """log p(y|x) float64 `[n, classes]` from log p(x|y) `[n, classes]` and log p(y) `[classes]` (Bayes' rule).

    Raises `GenzooError` where an image is NaN or impossible under every class.
    """
    joint = nats.double() + prior.to(nats.device)
    if bool(joint.isnan().any()) or bool((joint.max(1).values == -math.inf).any()):
        raise GenzooError("some image has no finite likelihood under any class: look at the likelihoods")
    return joint.log_softmax(1)


def calibration_error(log_probs: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Expected calibration error, 0 to 1: the mean of |accuracy - confidence| over groups of equally many images.

    `log_probs` are log p(y|x) `[n, classes]`, `labels` long `[n]`. Images are grouped by the probability of their
    likeliest class (Nguyen & O'Connor 2015; equal mass rather than equal width, which leaves most groups empty).
    It is above 0 for a perfectly calibrated model, too, by about sqrt(bins / n).
    """
    if bins < 1 or len(labels) == 0:
        raise GenzooError("a calibration error needs images and at least one bin")
    confidence, chosen = log_probs.exp().max(1)
    order = confidence.argsort(stable=True)
    gap = ((chosen == labels).double() - confidence.double())[order]
    return sum(abs(float(part.sum())) for part in gap.tensor_split(bins)) / len(labels)


@dataclass(frozen=True)
class Classification:
    """What a generative classifier gets right, and how far it knows that.

    `accuracy` 0 to 1; `nll` the mean of -log p(y|x) in nats, at the right classes; `calibration_error` as above;
    `confidence` the mean probability of the chosen class. `kind` is that of log p(x|y).
    """

    accuracy: float
    accuracy_stderr: float | None
    nll: float
    nll_stderr: float | None
    calibration_error: float
    confidence: float
    images: int
    classes: int
    kind: LikelihoodKind
    details: dict[str, Any] = field(default_factory=dict)


def classification(
    likelihoods: ClassLikelihoods, labels: Tensor, prior: Tensor | None = None, *, bins: int = BINS
) -> Classification:
    """The figures from log p(x|y) and true classes long `[n]`; `prior` is log p(y) `[classes]`, else uniform.

    Raises `GenzooError` for lengths that differ or labels out of range.
    """
    n, classes = likelihoods.nats.shape
    if len(labels) != n or n == 0:
        raise GenzooError(
            f"{n} images and {len(labels)} labels: each image needs one, and there must be some"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise GenzooError(
            f"labels must lie in 0..{classes - 1}, found {int(labels.min())}..{int(labels.max())}"
        )
    prior = log_prior(None, classes) if prior is None else prior
    labels = labels.cpu()
    log_probs = log_posterior(likelihoods.nats.cpu(), prior)
    hits = (log_probs.argmax(1) == labels).double()
    nll = -log_probs.gather(1, labels[:, None])[:, 0]
    return Classification(
        accuracy=hits.mean().item(),
        accuracy_stderr=_stderr(hits),
        nll=nll.mean().item(),
        nll_stderr=_stderr(nll),
        calibration_error=calibration_error(log_probs, labels, bins),
        confidence=log_probs.max(1).values.exp().mean().item(),
        images=n,
        classes=classes,
        kind=likelihoods.kind,
        details=likelihoods.details,
    )


def _stderr(values: Tensor) -> float | None:
    return None if len(values) < 2 else (values.std() / math.sqrt(len(values))).item()


def classify_split(
    model: GenerativeModel,
    split: "Split",
    indices: Tensor,
    *,
    prior: Tensor | None = None,
    chunk: int = 50,
    max_seconds: float | None = None,
    generator: torch.Generator | None = None,
) -> Classification:
    """`classification` of the images of `split` at long `indices`, under all classes of `model`.

    With `max_seconds` no further `chunk` images are begun after that time, so put `indices` into a random order.
    Raises as `class_likelihoods` does, and `GenzooError` for a split without classes.
    """
    check_classifies(model)
    if split.labels is None or split.labels.ndim != 1:
        raise GenzooError("there are no classes to compare with: the data has no labels")
    start, found, done = time.perf_counter(), [], []
    for part in indices.split(chunk):
        if found and max_seconds is not None and time.perf_counter() - start > max_seconds:
            break
        images = split.batch(part).images  # without a generator: the fixed draw, as all readers see it
        found.append(class_likelihoods(model, images, chunk=chunk, generator=generator))
        done.append(part)
    whole = ClassLikelihoods(torch.cat([f.nats for f in found]), min(f.kind for f in found), found[0].details)
    return classification(whole, split.labels[torch.cat(done)], prior)
