"""The area under the ROC curve, with its standard error."""

import math

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError


def auroc(negatives: Tensor, positives: Tensor) -> float:
    """P(positive > negative) + P(positive = negative) / 2 over all pairs: the area under the ROC curve.

    `negatives` `[n]` and `positives` `[m]` are scores; infinite ones are ranked like any other.

    >>> auroc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
    0.875

    Raises `GenzooError` where either is empty or holds a NaN.
    """
    if len(negatives) == 0 or len(positives) == 0:
        raise GenzooError("AUROC needs at least one score of each kind")
    if bool(negatives.isnan().any()) or bool(positives.isnan().any()):
        raise GenzooError("AUROC is not defined for scores that are NaN: look at the likelihoods")
    pairs = 2 * len(negatives) * len(positives)
    return (_twice_ranked_right(negatives, positives).sum() / pairs).item()


def auroc_stderr(negatives: Tensor, positives: Tensor) -> float | None:
    """Standard error of `auroc` over both sets of images (DeLong et al. 1988); None for fewer than two of either.

    The variance of each image's share of pairs that are ranked right, among negatives and among positives.
    """
    if min(len(negatives), len(positives)) < 2:
        return None
    of_positives = _twice_ranked_right(negatives, positives) / (2 * len(negatives))
    of_negatives = _twice_ranked_right(positives, negatives) / (2 * len(positives))
    variance = of_positives.var() / len(positives) + of_negatives.var() / len(negatives)
    return math.sqrt(variance.item())


def _twice_ranked_right(scores: Tensor, values: Tensor) -> Tensor:
    """Twice the number of `scores` `[n]` below each of `values` `[m]`, ties counted half: float64 `[m]`."""
    order = scores.double().sort().values
    values = values.double().to(order.device)
    below = torch.searchsorted(order, values)
    at_most = torch.searchsorted(order, values, right=True)
    return (below + at_most).double()
