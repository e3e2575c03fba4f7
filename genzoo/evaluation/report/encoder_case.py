"""What is evaluated of an encoder: its vectors of training images, held-out ones and the evaluated ones."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.progress_bar import progress_bar
from genzoo.core.random import seeded
from genzoo.evaluation.fine_tuning import FineTuning
from genzoo.evaluation.likelihood import subset
from genzoo.evaluation.report.case import set_id
from genzoo.metrics.probes import Labelled

if TYPE_CHECKING:
    from genzoo.data.image_data import ImageData
    from genzoo.data.split import Split
    from genzoo.models.base import Encoder

CHUNK = 500  # images read at once
MOST_HELD = 5000  # images that choices are made on and examples come from


@dataclass(frozen=True)
class EncoderCase:
    """An encoder, the images it is evaluated on (`split` is test or val), and how.

    `bank_images` bounds the training images that probes learn from. Vectors are computed when they are first asked for,
    and once. `out` is the folder where pictures go; `fine_tuning` asks what the encoder becomes by it. Raises
    `GenzooError` for the training split, which would be probed by its own images.
    """

    encoder: "Encoder"
    data: "ImageData"
    split: str = "test"
    seed: int = 0
    max_images: int | None = None
    bank_images: int | None = None
    out: Path | None = None
    fine_tuning: FineTuning | None = None

    def __post_init__(self) -> None:
        if self.split == "train":
            raise GenzooError("an encoder is probed by its training images: take --split test or val")
        if self.max_images is not None and self.max_images < 2:
            raise GenzooError(
                f"an encoder is evaluated on 2 images or more, got --max-images {self.max_images}"
            )

    @property
    def name(self) -> str:
        """What the evaluated images are called in reports."""
        return set_id(self.data, self.split)

    @property
    def labelled(self) -> bool:
        """Whether the images have classes."""
        return all(
            classes_of(split) is not None for split in (self.data.train, self._held_split, self.evaluated)
        )

    def generator(self, purpose: str) -> torch.Generator:
        """On the CPU, the same for the same seed and purpose."""
        return seeded("cpu", purpose, self.seed)

    @cached_property
    def queries(self) -> Tensor:
        """Vectors `[n, width]` of the evaluated images."""
        return embed(self.encoder, self.evaluated, self.chosen)

    @cached_property
    def parts(self) -> tuple[Labelled, Labelled, Labelled]:
        """Training vectors, held-out ones (for choices, and examples) and the evaluated ones, with classes.

        Held out is the validation split, cut from the training images; where that is evaluated itself, a tenth of the
        training split.
        """
        train = self.data.train
        order = torch.randperm(len(train), generator=self.generator("bank"))
        away = min(MOST_HELD, len(train) // 10) if self.split == "val" else 0
        held = order[:away] if away else subset(len(self.data.val), MOST_HELD, self.generator("held"))
        bank = order[away:][: self.bank_images]
        return self._with_classes(train, bank), self._with_classes(self._held_split, held), Labelled(
            self.queries, labels_at(self.evaluated, self.chosen)
        )  # fmt: skip

    def _with_classes(self, split: "Split", indices: Tensor) -> Labelled:
        return Labelled(embed(self.encoder, split, indices), labels_at(split, indices))

    @property
    def evaluated(self) -> "Split":
        """The split that holds the evaluated images."""
        return self.data.split(self.split)

    @property
    def _held_split(self) -> "Split":
        return self.data.train if self.split == "val" else self.data.val

    @property
    def chosen(self) -> Tensor:
        """Which images of `evaluated`, long `[n]`."""
        return subset(len(self.evaluated), self.max_images, self.generator("evaluate"))


def embed(encoder: "Encoder", split: "Split", indices: Tensor) -> Tensor:
    """Vectors `[m, width]`, on the CPU, of the images of `split` at long `indices` `[m]`, read a few at a time."""
    with progress_bar("embedding", len(indices)) as progress:
        parts = []
        for part in indices.split(CHUNK):
            parts.append(encoder.embed(split.batch(part).images.to(encoder.device)).cpu())
            progress(len(part))
    return torch.cat(parts) if parts else torch.zeros(0, encoder.width)


def classes_of(split: "Split") -> Tensor | None:
    """The classes long `[n]` of a split; None where it has vectors or nothing."""
    return split.labels if split.labels is not None and split.labels.ndim == 1 else None


def labels_at(split: "Split", indices: Tensor) -> Tensor:
    """The classes long `[m]` of the images at `indices`, of a split that has classes."""
    labels = classes_of(split)
    assert labels is not None
    return labels[indices]
