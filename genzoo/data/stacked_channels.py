"""Stacked images: three grey ones as the channels of one, a test of how many modes a sampler covers.

Of k classes they have k^3 kinds, nearly equally likely, a thousand for digits (Metz et al. 2017, section 3.3.1). Each
split is drawn in fixed pseudo-random triples from the same split of the source, so that no image crosses over.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.data.identity import extended
from genzoo.data.image_data import ImageData, conditional_spec, protocol
from genzoo.data.split import Split, TensorSplit

STACK_SEEDS = {"train": 0, "val": 1, "test": 2}
"""Seeds of the triples."""

STACK_SIZES = (50_000, 5_000, 10_000)
"""Stacked images of train, val and test."""


def stacked(
    data: ImageData, *, cond: str | None = None, sizes: tuple[int, int, int] = STACK_SIZES
) -> ImageData:
    """`data`, grey and labelled, as RGB images `[n, 3, h, w]` of three of its images each.

    `sizes` are those of train, val and test. Of the images' classes a, b, c among k the label is a k^2 + b k + c,
    long `[n]`; `cond="class"` conditions on it. Levels stay what they were. Raises `GenzooError` for colour, for
    real-valued data and for data without classes.
    """
    classes = _classes(data)
    train, val, test = (
        _stack(data.split(part), classes, n, seed)
        for (part, seed), n in zip(STACK_SEEDS.items(), sizes, strict=True)
    )
    name = f"stacked-{data.name}"
    spec = conditional_spec(name, (3, *data.spec.shape[1:]), data.spec.levels, cond, classes**3)
    return ImageData(name, train, val, test, spec, _protocol(data, name, (train, val, test)))


def stack_classes(classes: Tensor, k: int) -> Tensor:
    """The labels long `[n]` of stacked images whose channels have `classes` long `[n, 3]` out of `k`.

    >>> stack_classes(torch.tensor([[4, 0, 7]]), 10)
    tensor([407])
    """
    return (classes * torch.tensor([k * k, k, 1], device=classes.device)).sum(1)


def _stack(part: Split, classes: int, n: int, seed: int) -> TensorSplit:
    """NumPy's RandomState has a frozen stream: the triples are the same on every machine and for every version."""
    triples = torch.from_numpy(np.random.RandomState(seed).randint(len(part), size=(n, 3)))
    images = torch.cat([part.images[triples[:, i]] for i in range(3)], 1)
    assert part.labels is not None
    return TensorSplit(images, stack_classes(part.labels[triples], classes))


def _classes(data: ImageData) -> int:
    """How many classes the grey images of `data` have."""
    if len(data.spec.shape) != 3 or data.spec.shape[0] != 1 or data.spec.levels is None:
        raise GenzooError(
            f"only grey images are stacked, {data.name} has the shape {data.spec.shape} "
            f"and {data.spec.levels or 'no'} levels: use grey ones such as digits"
        )
    labels = [part.labels for part in (data.train, data.val, data.test)]
    if any(of is None or of.ndim != 1 for of in labels):
        raise GenzooError(f"{data.name} has no classes to stack: use labelled images such as digits")
    return 1 + max(int(of.max()) for of in labels if of is not None)


def _protocol(data: ImageData, name: str, splits: tuple[Split, Split, Split]) -> dict[str, Any]:
    test = f"stacked-{data.protocol['test_id']}"
    seed = f"triples={len(splits[2])},triples_seed={STACK_SEEDS['test']}"
    more: dict[str, Any] = {
        "stacked": "three images of one split each, pseudo-random with replacement",
        "triples_seeds": dict(STACK_SEEDS),
        "of": data.protocol,
    }
    return protocol(name, splits, extended(test, seed), more)
