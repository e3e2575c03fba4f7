"""Splits: what a model trains on or is measured on, whether it lies in memory or streams from disk.

A split gives images `[n, *shape]` (uint8 or long for images of discrete levels, float for real-valued data)
and, where it has them, labels: long `[n]` classes or float `[n, d]` vectors.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from genzoo.core.conditions import condition_tensor
from genzoo.core.errors import GenzooError
from genzoo.core.spec import Batch, DataSpec, check_dense

NO_LABEL = -1
"""The label of an item of an unlabelled split: an integer, so that the default collate function takes it."""

_CHECKED_IMAGES = 256  # a streaming split is not read from end to end just to check its values


@final
class LazyImages:
    """The images of a streaming split: indexed like a uint8 tensor `[n, c, h, w]`, read when asked for.

    `read` turns long indices `[m]` into uint8 images `[m, c, h, w]`. A key may be an int, a slice, an index
    tensor (or list) or a bool mask over the first axis; the answer is always a tensor.
    """

    dtype = torch.uint8

    def __init__(self, read: Callable[[Tensor], Tensor], shape: Sequence[int]) -> None:
        self.shape = torch.Size(shape)
        self._read = read
        self._positions = torch.arange(self.shape[0])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice | Sequence[int] | Tensor) -> Tensor:
        if isinstance(key, tuple) or key is None or key is Ellipsis:
            raise TypeError("streamed images are indexed by image only: index the tensor that comes out")
        chosen = self._positions[key]
        return self._read(chosen.reshape(-1)).reshape(*chosen.shape, *self.shape[1:])


class Split(Dataset, ABC):
    """Images with optional labels; also a `torch.utils.data.Dataset` of `(image, label)` pairs."""

    @property
    @abstractmethod
    def images(self) -> Tensor | LazyImages:
        """All images `[n, *shape]`: a tensor, or `LazyImages` where they stream from disk."""

    @property
    @abstractmethod
    def labels(self) -> Tensor | None:
        """Long `[n]` classes, float `[n, d]` vectors, or None."""

    @abstractmethod
    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """The images (and labels, as `cond`) at long `indices` `[b]`, as a model sees them in training.

        With a generator whatever is random about the data is drawn anew; without one it is the fixed draw
        that `images` holds.
        """

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        """Image `[*shape]` and its label: an int, a float `[d]` vector, or `NO_LABEL` for want of one."""
        labels = self.labels
        if labels is None:
            return self.images[index], NO_LABEL
        return self.images[index], int(labels[index]) if labels.ndim == 1 else labels[index]


@final
class TensorSplit(Split):
    """A split in memory. Raises `GenzooError` where `images` and `labels` are not what a split takes.

    `images` are uint8 or long `[n, c, h, w]`, or float `[n, ...]` for real-valued data; `labels` are integers
    `[n]` (kept as long), float `[n, d]` vectors, or None.
    """

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        self._images = _checked_images(images)
        self._labels = _checked_labels(labels, len(images))

    @property
    @override
    def images(self) -> Tensor:
        return self._images

    @property
    def labels(self) -> Tensor | None:
        """Long `[n]`, float `[n, d]`, or None."""
        return self._labels

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """The images at `indices` `[b]`; nothing about them is random."""
        return Batch(self.images[indices], _rows(self.labels, indices))


@final
class BinarisedSplit(Split):
    """Grey images whose pixels are ink with probability grey/255: drawn anew for each training batch.

    `grey` is uint8 `[n, c, h, w]`. `images` is one fixed draw, made from `seed` when first asked for.
    (Dynamic binarisation, Salakhutdinov & Murray 2008.)
    """

    def __init__(self, grey: Tensor, labels: Tensor | None = None, seed: int = 0) -> None:
        self.grey = _checked_images(grey)
        if grey.dtype != torch.uint8:
            raise GenzooError(f"grey images must be uint8 to be binarised, got {_name(grey.dtype)}")
        self.seed = seed
        self._labels = _checked_labels(labels, len(grey))

    @cached_property
    def _fixed(self) -> Tensor:
        return binarise(self.grey, self.seed)

    @property
    def images(self) -> Tensor:
        """The fixed draw, uint8 `[n, c, h, w]` of zeros and ones."""
        return self._fixed

    @property
    def labels(self) -> Tensor | None:
        """Long `[n]`, float `[n, d]`, or None."""
        return self._labels

    def __len__(self) -> int:
        return len(self.grey)  # without making the fixed draw

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """Binary images at `indices` `[b]`: a fresh draw from `generator`, or the fixed draw without one."""
        if generator is None:
            return Batch(self.images[indices], _rows(self.labels, indices))
        grey = self.grey[indices]
        threshold = torch.randint(
            255, grey.shape, dtype=torch.uint8, generator=generator, device=generator.device
        )
        return Batch((threshold.to(grey.device) < grey).to(torch.uint8), _rows(self.labels, indices))


@final
class FolderSplit(Split):
    """Images of a folder, in memory or streaming; `paths[i]` is the file of image i.

    `content` is a digest of the files, by which the images are known, `root` the folder.
    """

    def __init__(
        self,
        images: Tensor | LazyImages,
        labels: Tensor | None = None,
        paths: Sequence[Path] = (),
        content: str = "",
        root: Path | None = None,
    ) -> None:
        self._images = images
        self._labels = _checked_labels(labels, len(images))
        self.paths = tuple(paths)
        self.content, self.root = content, root

    @property
    def images(self) -> Tensor | LazyImages:
        """Uint8 `[n, c, h, w]`: a tensor where the folder fits the memory limit, else `LazyImages`."""
        return self._images

    @property
    def labels(self) -> Tensor | None:
        """Long `[n]`, or None where the folder has no class folders."""
        return self._labels

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """The images at `indices` `[b]`, read from disk where they stream; nothing about them is random."""
        return Batch(self.images[indices], _rows(self.labels, indices))


def binarise(grey: Tensor, seed: int) -> Tensor:
    """One fixed draw of Bernoulli(grey/255), uint8 `[n, c, h, w]` -> uint8 of zeros and ones.

    The threshold is uniform on 0..254, so that P(threshold < grey) is grey/255 exactly. NumPy's RandomState
    has a frozen stream: the draw is the same on every machine and for every version.
    """
    thresholds = np.random.RandomState(seed).randint(0, 255, size=tuple(grey.shape), dtype=np.uint8)
    return (torch.from_numpy(thresholds) < grey).to(torch.uint8)


def as_split(data: Split | Tensor | tuple[Tensor, Tensor]) -> Split:
    """A split of whatever `fit` takes: a split, images, or `(images, labels or vectors)`.

    Raises `GenzooError` where the tensors have a wrong type or shape, or lengths that differ.
    """
    if isinstance(data, Split):
        return data
    if isinstance(data, tuple):
        if len(data) != 2:
            raise GenzooError(f"data must be images or (images, labels), got a tuple of {len(data)}")
        images, labels = data
        return TensorSplit(images, None if labels is None else condition_tensor(labels))
    return TensorSplit(data)


def validate(split: Split, spec: DataSpec) -> None:
    """Raises `GenzooError` where the images or labels of `split` do not fit `spec`.

    All images in memory are looked at; of a streaming split the shape and the values of an evenly spaced
    sample of 256.
    """
    images = split.images
    if tuple(images.shape[1:]) != spec.shape:
        raise GenzooError(
            f"images have the shape {tuple(images.shape[1:])}, the model was made for {spec.shape}"
        )
    if isinstance(images, LazyImages):
        images = images[torch.linspace(0, len(images) - 1, min(len(images), _CHECKED_IMAGES)).long()]
    _validate_values(images, spec.levels)
    if spec.cond is not None:
        # the first vector stands for all: those of pairs are made when asked for, and may be many
        first_only = spec.cond == "vector"
        _validate_cond(split.batch(torch.arange(1)).cond if first_only else split.labels, spec)


def _validate_values(images: Tensor, levels: int | None) -> None:
    if levels is None:
        if not images.is_floating_point():
            raise GenzooError(f"real-valued data must be float, got {_name(images.dtype)}")
        if not bool(images.isfinite().all()):
            raise GenzooError("the data holds NaN or infinite values: remove them")
        return
    if images.is_floating_point():
        raise GenzooError(
            f"images must be integers 0..{levels - 1} (uint8 or long), got {_name(images.dtype)}"
        )
    low, high = int(images.min()), int(images.max())
    if low < 0 or high >= levels:
        found = low if low < 0 else high
        raise GenzooError(
            f"image values out of range: found {found}, the spec has {levels} levels (0..{levels - 1})"
        )


def _validate_cond(labels: Tensor | None, spec: DataSpec) -> None:
    if labels is None:
        raise GenzooError(f"the model is conditioned on a {spec.cond}, but the data has no labels: pass them")
    if spec.cond == "vector":
        if labels.ndim != 2:
            raise GenzooError(
                f"the spec has vectors [n, {spec.cond_size}] as cond, the data has class labels [n]"
            )
        if labels.shape[1] != spec.cond_size:
            raise GenzooError(f"vectors are {labels.shape[1]} wide, the spec has cond_size {spec.cond_size}")
        return
    if labels.ndim != 1:
        raise GenzooError(f"the spec has classes as cond, the data has vectors {tuple(labels.shape)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= spec.cond_size:
        raise GenzooError(
            f"labels out of range: found {low if low < 0 else high}, "
            f"the spec has {spec.cond_size} classes (0..{spec.cond_size - 1})"
        )


def _checked_images(images: Any) -> Tensor:
    if not isinstance(images, Tensor):
        raise GenzooError(f"images must be a torch tensor [n, c, h, w], got {type(images).__name__}")
    check_dense(images, "images are")
    if images.dtype not in (torch.uint8, torch.long) and not images.is_floating_point():
        raise GenzooError(
            f"images must be uint8 or long (float for real-valued data), got {_name(images.dtype)}"
        )
    if images.is_floating_point() and images.ndim < 2:
        raise GenzooError(f"real-valued data must have the shape [n, ...], got {tuple(images.shape)}")
    if not images.is_floating_point() and images.ndim != 4:
        raise GenzooError(f"images must have the shape [n, c, h, w], got {tuple(images.shape)}")
    if len(images) == 0:
        raise GenzooError(f"there are no images: got the shape {tuple(images.shape)}")
    return images


def _checked_labels(labels: Any, length: int) -> Tensor | None:
    if labels is None:
        return None
    if not isinstance(labels, Tensor):
        raise GenzooError(f"labels must be a torch tensor, got {type(labels).__name__}")
    check_dense(labels, "labels are")
    if labels.is_complex() or labels.dtype == torch.bool or labels.ndim != 1 + labels.is_floating_point():
        raise GenzooError(
            "labels must be integers [n] or float vectors [n, d], "
            f"got {_name(labels.dtype)} {tuple(labels.shape)}"
        )
    if len(labels) != length:
        raise GenzooError(f"lengths differ: {length} images and {len(labels)} labels")
    return labels if labels.is_floating_point() else labels.long()


def _rows(labels: Tensor | None, indices: Tensor) -> Tensor | None:
    return None if labels is None else labels[indices]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
