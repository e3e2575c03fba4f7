"""Samples beside the training images nearest to them, as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data.image_grid import save_grid

if TYPE_CHECKING:
    from genzoo.data.split import LazyImages
from genzoo.metrics.memorisation import Suspects

PAIRS = 32

PAIRS_A_ROW = 4


def neighbours_picture(
    samples: Tensor, train_images: "Tensor | LazyImages", found: Suspects, pairs: int = PAIRS
) -> Tensor:
    """Sample and nearest training image, integers `[pairs, 2, c, h, w]`, of the most suspicious samples.

    `samples` `[m, c, h, w]` and `train_images` `[n, c, h, w]` are those whose features `found` was made from. Raises
    `GenzooError` where their numbers or shapes do not fit.
    """
    beyond = len(found.samples) != len(samples) or int(found.train.max()) >= len(train_images)
    if beyond or samples.shape[1:] != train_images.shape[1:] or pairs < 1:
        raise GenzooError(
            f"samples {list(samples.shape)} and training images {list(train_images.shape)} are not those that "
            f"{len(found.samples)} samples were compared with: pass the same in the same order"
        )
    drawn = samples.cpu()[found.samples[:pairs]]
    return torch.stack([drawn, train_images[found.train[:pairs]].cpu().to(drawn.dtype)], 1)


def save_neighbours(picture: Tensor, spec: DataSpec, path: str | Path, *, inside: Path | None = None) -> None:
    """Writes pairs of integer images `[n, 2, c, h, w]` as PNG, row after row of four pairs.

    Raises `GenzooError` where the file cannot be written.
    """
    save_grid(picture.flatten(0, 1), spec, path, columns=2 * min(PAIRS_A_ROW, len(picture)), inside=inside)
