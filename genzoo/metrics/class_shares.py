"""Of which classes samples are that were drawn without asking for one, and in which shares.

A class is told by the 20 nearest training images in the features of an extractor (`genzoo.metrics.probes`). Real images
go through the same hands, so that classes which the feature extractor mixes up count for neither side.

    shift   sum_c |p_c - q_c| / 2     total variation distance of the shares of samples p and of real images q
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.metrics.estimate import Estimate
from genzoo.metrics.intervals import MORE, bootstrap, in_halves, share_estimate
from genzoo.metrics.probes import Labelled, nearest_classes


@dataclass(frozen=True)
class ClassShares:
    """The class of each sample, long `[m]`; shares of samples and of real images, float64 `[classes]`; their shift."""

    found: Tensor
    samples: Tensor
    real: Tensor
    shift: Estimate

    def share_figures(self, names: Sequence[str]) -> dict[str, Estimate]:
        """Of each class in `names` its share among samples, with that among real images as `reference`."""
        pairs = zip(names, self.samples.tolist(), self.real.tolist(), strict=False)
        sizes = {"samples": self.shift.samples, "references": self.shift.references}
        return {
            name: replace(share_estimate(p, self.shift.samples, floor=q, higher_is_better=None), **sizes)
            for name, p, q in pairs
        }


def class_shares(
    bank: Labelled,
    samples: Tensor,
    real: Tensor,
    stand_in: Tensor,
    *,
    generator: torch.Generator | None = None,
) -> ClassShares:
    """Shares among `samples` `[m, d]` beside those among `real` `[n, d]`, told by the training images of `bank`.

    `stand_in` `[m, d]` are other real images, whose shift is the reference. `generator` (on the CPU) is for the
    interval. Raises `GenzooError` for fewer than four images a side.
    """
    if min(map(len, (samples, real, stand_in))) < 4:
        raise GenzooError("shares of classes need four or more samples and real images")
    found = nearest_classes(bank, samples.to(bank.vectors))
    p, q, r = (
        torch.nn.functional.one_hot(classes, bank.classes).double()
        for classes in (found, *(nearest_classes(bank, rows.to(bank.vectors)) for rows in (real, stand_in)))
    )
    low, high = bootstrap(_shift, q, p, distance=True, generator=generator)
    shift = Estimate(
        _shift(q, p), len(p), len(q), low, min(high, 1.0), f"{in_halves()}, {MORE}", _shift(q, r)
    )
    return ClassShares(found, p.mean(0), q.mean(0), shift)


def by_class(images: Tensor, classes: Tensor, rows: int, columns: int) -> Tensor:
    """The first `columns` of `images` `[m, c, h, w]` of each class below `rows`: `[rows, columns, c, h, w]`.

    What a class lacks stays black.
    """
    picture = images.new_zeros(rows, columns, *images.shape[1:])
    for row in range(rows):
        chosen = images[classes == row][:columns]
        picture[row, : len(chosen)] = chosen
    return picture


def _shift(real: Tensor, fake: Tensor) -> float:
    """Of classes as rows of zeros and a one."""
    return (real.mean(0) - fake.mean(0)).abs().sum().item() / 2
