"""Does a condition matter? Two figures of samples that were drawn under conditions, as pure functions of matrices.

    variations   AUC_i = P(sim(x_i, own) > sim(x_i, other)) + P(sim(x_i, own) = sim(x_i, other)) / 2
    classes      the share of the samples of class c that a classifier gives to class c

x_i are features of an image, own those of its variations, other those of the variations of all other images; the
figure is the mean of AUC_i over images: 1/2 where the condition is ignored, 1 where every variation lies nearer to its
image than any other does. The features must be those of an encoder that had no part in the samples, or pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genzoo.core.errors import GenzooError
from genzoo.metrics.probes import Share, accuracy
from genzoo.metrics.roc import auroc

Similarity = Callable[[Tensor, Tensor], Tensor]
"""Features `[n, d]` and `[m, d]` to similarities float64 `[n, m]`, larger for what is more alike."""
MOST_AT_ONCE = 2**24  # similarities in memory


class Nearness(NamedTuple):
    """Mean AUC over `images` of them, 0 to 1, and its standard error over images."""

    value: float
    stderr: float
    images: int


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosines of all pairs `[n, m]`, float64; that of a zero vector is 0.

    Rounded to twelve digits: the last ones depend on how a product is cut into blocks, and equal pairs must tie.
    """
    return (F.normalize(a.double(), dim=1) @ F.normalize(b.double(), dim=1).T).round(decimals=12)


def closeness(a: Tensor, b: Tensor) -> Tensor:
    """Minus the squared Euclidean distance of all pairs `[n, m]`, float64; exact for integers, as pixels are."""
    a, b = a.double(), b.double()
    return 2 * a @ b.T - a.square().sum(1)[:, None] - b.square().sum(1)


def variation_auc(
    images: Tensor,
    variations: Tensor,
    *,
    groups: Tensor | None = None,
    similarity: Similarity = cosine,
) -> Nearness:
    """How surely the variations of an image lie nearer to it than those of other images do.

    `images` are features `[n, d]`, `variations` `[n, k, d]`, k of each image. With `groups` (long `[n]`, classes say)
    an image is held against others of its own group only, which is harder; images that are alone in theirs are left
    out. The area under the ROC curve is exact over all pairs (Mann & Whitney 1947), ties count half; its error is
    that of the mean of independent images. Raises `GenzooError` for features that do not go together or are not
    finite, and where fewer than two images are left to compare.
    """
    _check(images, variations, groups)
    n, k = variations.shape[:2]
    flat, own = variations.flatten(0, 1), torch.arange(n, device=images.device)
    found: list[float] = []
    for part in own.split(max(1, MOST_AT_ONCE // (n * k))):
        similarities = similarity(images[part], flat).view(len(part), n, k)
        rivals = own != part[:, None]
        if groups is not None:
            rivals &= groups == groups[part, None]
        for row, i, others in zip(similarities, part.tolist(), rivals, strict=True):
            if bool(others.any()):
                found.append(auroc(row[others].flatten(), row[i]))
    if len(found) < 2:
        raise GenzooError("no two images have others of their group to be held against: take more images")
    each = torch.tensor(found, dtype=torch.float64)
    return Nearness(each.mean().item(), (each.std() / len(each) ** 0.5).item(), len(each))


def _check(images: Tensor, variations: Tensor, groups: Tensor | None) -> None:
    if images.ndim != 2 or variations.ndim != 3 or 0 in variations.shape:
        raise GenzooError(
            f"features must be [n, d] of images and [n, k, d] of their variations, got {list(images.shape)} and "
            f"{list(variations.shape)}"
        )
    n, _, d = variations.shape
    if tuple(images.shape) != (n, d) or (groups is not None and tuple(groups.shape) != (n,)):
        shapes = [list(x.shape) for x in (images, variations, groups) if x is not None]
        raise GenzooError(f"images, variations (and groups) do not go together: {shapes}")
    if n < 2:
        raise GenzooError(
            "variations of one image have none of another to be held against: give 2 images or more"
        )
    if not bool(images.isfinite().all()) or not bool(variations.isfinite().all()):
        raise GenzooError("features hold NaN or infinity: look at the encoder")


# --- classes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassAgreement:
    """How often a classifier sees the class that was asked for: over all samples, and by class (0 to 1)."""

    overall: Share
    shares: tuple[float, ...]

    @property
    def worst(self) -> int:
        """The class that is drawn worst."""
        return min(range(len(self.shares)), key=self.shares.__getitem__)


def class_agreement(probabilities: Tensor, asked: Tensor) -> ClassAgreement:
    """Of P(class | sample) `[n, classes]` and the class that each sample was asked for, long `[n]`.

    The error is that of n independent samples. Raises `GenzooError` where a class was never asked for, the two do not
    go together, or a probability is NaN.
    """
    if probabilities.ndim != 2 or asked.shape != probabilities.shape[:1] or asked.is_floating_point():
        raise GenzooError(
            f"samples need probabilities [n, classes] and a class each, got {list(probabilities.shape)} and "
            f"{list(asked.shape)}"
        )
    if bool(probabilities.isnan().any()):
        raise GenzooError("probabilities of classes hold NaN: look at the classifier")
    counts = torch.bincount(asked, minlength=probabilities.shape[1])
    if len(counts) != probabilities.shape[1] or not bool(counts.all()):
        raise GenzooError(
            "every class that the classifier knows, and no other, must be asked for at least once"
        )
    seen = probabilities.argmax(1)
    right = torch.bincount(asked[seen == asked], minlength=len(counts))
    return ClassAgreement(accuracy(seen, asked), tuple((right / counts).tolist()))
