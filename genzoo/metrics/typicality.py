"""How far images lie from real ones, held against how far real ones lie from each other.

The distance of an image is that to its K-th nearest real one, in features, not counting itself. Of images that follow
the distribution of the data, whatever that is, it is distributed as that of further real images. From this

    typicality    of an image: the share of held-out real images that lie as far out or farther; uniform for real images
    fidelity      1 - max_t (share of samples farther out than t - share of real images farther out than t)
    variety       1 - max_k (coverage that k neighbours of real images ought to have - coverage that they have)

Fidelity is one less Smirnov's one-sided distance D+ of two samples (1939): the least share of samples that must be
replaced before the rest lie no farther out than real images do. Samples in the midst of the data gain nothing by it,
unlike in precision and density; copies of a few images, which are no sample of all distances, lose.

The coverage of k neighbours is the share of real images with a sample nearer than their k-th nearest other real one;
for samples of the data it is known whatever their distribution (`genzoo.metrics.neighbours.expected_coverage`, Naeem et
al. 2020). The largest shortfall over k needs no choice of k: copies show at small k, parts of the data that are left
out at large k. A real image counts as drawn only where a sample comes near, so that variety falls with noise, too: read
fidelity first.

Both are 1 for samples of the data, up to the noise of finite sets, of which their reference values tell.
"""

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError

K_VARIETY = 10
"""Most neighbours of variety; more change nothing."""


def typicality(held: Tensor, images: Tensor) -> Tensor:
    """The share of held-out real images with a distance `[n]` as large as that of each image `[m]`, float64 `[m]`.

    1 for what lies nearest to real images, 0 for what lies farther out than any of the held-out ones.

    >>> typicality(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 2.0, 3.5, 9.0])).tolist()
    [1.0, 0.75, 0.25, 0.0]

    Raises `GenzooError` where there are no held-out distances.
    """
    if not len(held):
        raise GenzooError("how typical an image is takes held-out real images, there are none")
    return 1 - torch.searchsorted(held.sort().values, images.to(held)).double() / len(held)


def fidelity(real: Tensor, fake: Tensor) -> float:
    """1 - D+ of the distances of real images `[n]` and samples `[m]` (or their squares).

    >>> fidelity(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 3.0, 9.0, 9.0]))
    0.5
    """
    limits = real.sort().values  # the excess is largest right at a distance of a real image

    def beyond(values: Tensor) -> Tensor:
        return 1 - torch.searchsorted(values.sort().values, limits, right=True).double() / len(values)

    return 1 - (beyond(fake) - beyond(real)).clamp(min=0).max().item()


def variety(nearest: Tensor, limits: Tensor, expected: Tensor) -> float:
    """1 less the largest shortfall of coverage over k.

    `nearest` `[n]` are distances of real images to the nearest sample, `limits` `[n, k]` what they must be below to be
    covered by 1 .. k neighbours, `expected` `[k]` the coverage of samples of the data.

    >>> variety(torch.tensor([0.5, 3.0]), torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([0.5, 0.75]))
    0.75
    """
    covered = (nearest[:, None] < limits).double().mean(0)
    return 1 - (expected.to(covered) - covered).clamp(min=0).max().item()
