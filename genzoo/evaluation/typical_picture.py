"""The best, the median and the worst samples of a run, by how far they lie from real images.

The distance of a sample is that to its fifth nearest real image, in features (`genzoo.metrics.typicality`): large for
what no real image is like. Its typicality is the share of held-out real images that lie as far out or farther, so that
0 says that no held-out real image is so odd; the samples are ordered by the distance itself, which tells such apart.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from genzoo.metrics.neighbours import K_DENSITY, nearest
from genzoo.metrics.quality import FeatureSets
from genzoo.metrics.typicality import typicality

PER_ROW = 8
HELD = 2000
"""Held-out real images, at most, that typicality is measured by."""


class Scores(NamedTuple):
    """Of samples `[n]`, float64: distances to real images, and typicality in [0, 1]."""

    distances: Tensor
    typicality: Tensor

    def rows(self) -> tuple[Tensor, tuple[float, ...]]:
        """The places `[3, k]` of `best_median_worst`, and the mean typicality of each row."""
        places = best_median_worst(self.distances)
        return places, tuple(self.typicality[places].mean(1).tolist())


def scores(sets: FeatureSets) -> Scores:
    """Of all samples. Raises `GenzooError` where there are fewer real images than neighbours, or none held out."""

    def distances(rows: Tensor) -> Tensor:
        return nearest(rows, sets.real, K_DENSITY).distances[:, -1].contiguous()

    own = distances(sets.samples)
    return Scores(own, typicality(distances(sets.held[:HELD]), own))


def best_median_worst(distances: Tensor, count: int = PER_ROW) -> Tensor:
    """Places long `[3, k]` of the `count` samples with the smallest, the middle and the largest distances `[n]`.

    Fewer where there are too few for three rows; from near to far in each row.

    >>> best_median_worst(torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 7.0]), 2).tolist()
    [[1, 3], [2, 0], [5, 6]]
    """
    order = distances.argsort(stable=True)
    count = max(1, min(count, len(order) // 3))
    middle = (len(order) - count + 1) // 2
    return torch.stack([order[:count], order[middle : middle + count], order[len(order) - count :]])
