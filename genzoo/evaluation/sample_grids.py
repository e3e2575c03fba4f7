"""Grids of samples, written as PNG files."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.data.split import Split
    from genzoo.models.base import GenerativeModel


MOST_CLASSES = 40
"""With more classes than these a grid does not show all of them unless it is asked to."""


@dataclass(frozen=True)
class WrittenGrid:
    """A written grid of samples: where it is, and how many images were drawn in a second."""

    path: Path
    images_per_second: float


def draw_grid(
    model: "GenerativeModel",
    path: Path,
    *,
    n: int = 64,
    cond: "Tensor | None" = None,
    seed: int = 0,
    names: Sequence[str] = (),
    inside: Path | None = None,
) -> WrittenGrid:
    """Draws `n` images and writes them to `path` as one PNG; `inside` is as in `core.files.write_product`.

    Of a model of classes each row shows one class, whose name among `names` is written beside it; without `cond` all
    classes are shown where there are not too many of them. Raises `GenzooError` for real-valued data, which have no
    picture, or where `path` cannot be written.
    """
    import torch

    from genzoo.core.errors import GenzooError
    from genzoo.core.random import seeded
    from genzoo.data.class_rows import class_rows
    from genzoo.data.image_grid import save_grid

    if model.spec.levels is None:
        raise GenzooError("real-valued data have no picture; draw them with model.sample in Python")
    if cond is None and model.spec.cond == "class" and model.spec.cond_size <= min(n, MOST_CLASSES):
        cond = evenly(torch.arange(model.spec.cond_size), n)
    of_class = cond is not None and model.spec.cond == "class"
    start = time.perf_counter()
    images = model.sample(n, cond, generator=seeded(model.device, "sample", seed))
    seconds = time.perf_counter() - start
    rows = class_rows(cond, names) if of_class else None
    save_grid(images, model.spec, path, class_rows=rows, inside=inside)
    return WrittenGrid(path, n / seconds)


def evenly(classes: "Tensor", n: int) -> "Tensor":
    """`n` of the classes long `[k]` in blocks of nearly equal size.

    >>> import torch
    >>> evenly(torch.tensor([7, 2]), 5)
    tensor([7, 7, 7, 2, 2])
    """
    import torch

    return classes[torch.arange(n) * len(classes) // max(n, 1)]


def draw_pairs(
    model: "GenerativeModel",
    split: "Split",
    path: Path,
    *,
    n: int = 32,
    seed: int = 0,
    inside: Path | None = None,
) -> WrittenGrid:
    """Writes input, prediction and truth of `n` images of `split`, chosen by `seed`, to `path` as one PNG.

    Four threes stand in a row. Raises `GenzooError` where the split has fewer images, or no input images.
    """
    import torch

    from genzoo.core.errors import GenzooError
    from genzoo.core.random import seeded
    from genzoo.data.image_grid import save_triples
    from genzoo.models.input_pictures import translation_picture

    if n > len(split):
        raise GenzooError(f"there are only {len(split)} input images: give --n at most {len(split)}")
    chosen = torch.randperm(len(split), generator=seeded("cpu", "pairs", seed))[:n]
    start = time.perf_counter()
    triples = translation_picture(model, split, chosen, generator=seeded(model.device, "sample", seed))
    seconds = time.perf_counter() - start
    save_triples(triples, model.spec, path, inside=inside)
    return WrittenGrid(path, n / seconds)


def draw_variations(
    model: "GenerativeModel", split: "Split", path: Path, *, seed: int = 0, inside: Path | None = None
) -> WrittenGrid:
    """Writes eight images of `split`, each with seven samples under its vector beside it, to `path` as one PNG."""
    import torch

    from genzoo.core.random import seeded
    from genzoo.data.image_grid import save_grid

    images, cond = split.batch(torch.arange(min(8, len(split))))
    assert cond is not None
    vectors = cond.repeat_interleave(7, 0).to(model.device)
    start = time.perf_counter()
    drawn = model.sample(len(vectors), vectors, generator=seeded(model.device, "sample", seed)).cpu()
    seconds = time.perf_counter() - start
    rows = torch.cat([images[:, None].to(drawn), drawn.unflatten(0, (len(images), 7))], 1)
    save_grid(rows.flatten(0, 1), model.spec, path, columns=8, inside=inside)
    return WrittenGrid(path, len(vectors) / seconds)
