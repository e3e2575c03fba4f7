"""What a source gives: three splits, what a model must know of them, and the protocol behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data.identity import content_of
from genzoo.data.listing import expanded
from genzoo.data.split import FolderSplit, Split
from genzoo.data.toy import Density

SPLIT_SEED = 0
"""Seed of every split that a source makes itself."""


@final
@dataclass(frozen=True)
class ImageData:
    """A data set as `load_data` gives it.

    `protocol` is JSON-able and travels into every report: the name, seeds, the splits' sizes, and under
    "test_id" what the test set is, so that only figures of one test set are compared; under "content" digests of
    the splits' images, by which data are known wherever they lie (`genzoo.data.identity`). `truth` is the density
    behind analytic data, None elsewhere.
    """

    name: str
    train: Split
    val: Split
    test: Split
    spec: DataSpec
    protocol: dict[str, Any]
    truth: Density | None = None

    def split(self, name: str) -> Split:
        """The split called train, val or test."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was passed over, guessed or doubtful when the data were read, a line each."""
        return tuple(self.protocol.get("remarks", ()))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes in the order of their numbers, fit to be shown; () where they have none."""
        return tuple(map(str, self.protocol.get("classes", ())))

    @property
    def root(self) -> Path | None:
        """The folder that the images were read from; None for data that lie in no folder of pictures."""
        if isinstance(self.train, FolderSplit) and self.train.root is not None:
            return self.train.root
        kind, _, path = self.name.partition(":")
        return expanded(path) if kind == "folder" else None

    def log_prob(self, images: Tensor) -> Tensor:
        """The true log-probability of `images` `[n, *shape]` in nats, float64 `[n]`.

        Raises `GenzooError` where the data has no known density.
        """
        if self.truth is None:
            raise GenzooError(f"the true density of {self.name} is unknown: only toy: data has log_prob")
        return self.truth.log_prob(images)


def protocol(
    name: str, splits: tuple[Split, Split, Split], test_id: str, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The protocol of `(train, val, test)`; `more` is what a source adds to it, or says better."""
    sizes = dict(zip(("train", "val", "test"), map(len, splits), strict=True))
    content = {} if "content" in (more or {}) else {"content": content_of(splits)}
    return {
        "name": name, "test_id": test_id, "split_seed": SPLIT_SEED, "sizes": sizes, **content, **(more or {})
    }  # fmt: skip


def with_remarks(data: ImageData, remarks: Sequence[str]) -> ImageData:
    """`data` with further remarks."""
    return replace(data, protocol={**data.protocol, "remarks": [*data.remarks, *remarks]})


def conditional_spec(
    name: str, shape: tuple[int, ...], levels: int | None, cond: str | None, classes: int
) -> DataSpec:
    """The spec of a source with `classes` classes (0: unlabelled) under `cond`, None or "class".

    Raises `GenzooError` where the source cannot be conditioned so.
    """
    if cond is None:
        return DataSpec(shape, levels)
    if cond != "class":
        raise GenzooError(f'cond must be None or "class" for {name}, got {cond!r}')
    if classes == 0:
        raise GenzooError(f'{name} has no labels, so cond="class" is impossible: leave cond out')
    return DataSpec(shape, levels, "class", classes)


def permutation(n: int) -> np.ndarray:
    """The fixed order of n items that splits are cut from; the same for every version (RandomState is frozen)."""
    return np.random.RandomState(SPLIT_SEED).permutation(n)
