"""What a model must know of its data, and what it is given of them.

Shapes are written `[b, c, h, w]`; likelihoods are in nats unless a name says bits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from genzoo.core.bounds import Range, check_number, shown
from genzoo.core.errors import GenzooError, InvalidValue

SIDES, LEVELS, COND_SIZES = Range(1, 2**20), Range(2, 2**20), Range(0, 2**24)
MOST_DIMS = 2**28
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Types that images of levels may have: PyTorch computes little with other unsigned ones."""


@dataclass(frozen=True)
class DataSpec:
    """What a model must know of its data.

    `shape` is `(channels, height, width)` of an image, or any shape of real-valued data. `levels` is the
    number of values a sub-pixel takes (0 .. levels-1), or None for real-valued data. `cond` names what a
    model is conditioned on: None, "class" (`cond_size` classes) or "vector" (`cond_size` wide).

    >>> DataSpec((1, 8, 8), levels=17).dims
    64

    Raises `InvalidValue` (a `GenzooError`) where a part has no such value, or the parts contradict each other.
    """

    shape: tuple[int, ...]
    levels: int | None = 256
    cond: Literal["class", "vector"] | None = None
    cond_size: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.shape, Sequence) or isinstance(self.shape, str):
            raise InvalidValue(f"shape must be a list of sizes, got {shown(self.shape)}")
        for side in self.shape:
            check_number("every side in shape", side, SIDES, whole=True)
        object.__setattr__(self, "shape", tuple(int(s) for s in self.shape))
        if not self.shape or self.dims > MOST_DIMS:
            raise InvalidValue(f"shape must hold sizes whose product is at most 2**28, got {self.shape}")
        if self.levels is not None:
            check_number("levels", self.levels, LEVELS, whole=True)
        check_number("cond_size", self.cond_size, COND_SIZES, whole=True)
        if self.levels is not None and len(self.shape) != 3:
            raise InvalidValue(f"discrete images have the shape (channels, height, width), got {self.shape}")
        if self.cond not in (None, "class", "vector"):
            raise InvalidValue(f'cond must be None, "class" or "vector", got {self.cond!r}')
        if (self.cond is None) != (self.cond_size == 0):
            raise InvalidValue(f"cond={self.cond!r} does not go with cond_size={self.cond_size}")

    @property
    def dims(self) -> int:
        """D, the number of sub-pixels, unpadded."""
        return math.prod(self.shape)


class Batch(NamedTuple):
    """`images`: integers (uint8 or long) `[b, *shape]`, float for real-valued data.
    `cond`: long `[b]` classes, float `[b, cond_size]` vectors, or None."""

    images: Tensor
    cond: Tensor | None = None


class Images(Protocol):
    """Images with or without labels, as far as those who only read them must know: every split is such a set."""

    @property
    def images(self) -> Any:
        """Indexed by long `[b]` it gives integers `[b, *shape]`: a tensor, or what reads them when asked."""
        ...

    @property
    def labels(self) -> Tensor | None:
        """Classes long `[n]`, vectors `[n, d]`, or None."""
        ...

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """The images and conditions at long `indices` `[b]`."""
        ...

    def __len__(self) -> int: ...


def check_dense(tensor: Tensor, what: str) -> None:
    """Raises `GenzooError` where `tensor`, `what` a person gave, does not hold its numbers one by one."""
    if tensor.device.type == "meta":
        raise GenzooError(f"{what} on the meta device, which holds no numbers")
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise GenzooError(f"{what} sparse or quantised: give a dense tensor")


def check_images(images: Tensor, spec: DataSpec) -> Tensor:
    """`images` if they are integers `[n, *spec.shape]` in 0 .. levels-1; raises `GenzooError` otherwise."""
    if not isinstance(images, Tensor):
        raise GenzooError(f"images must be a torch tensor, got {shown(images)}")
    check_dense(images, "images are")
    if tuple(images.shape[1:]) != spec.shape or images.ndim != 1 + len(spec.shape):
        raise GenzooError(
            f"images must have the shape [n, {', '.join(map(str, spec.shape))}], got {list(images.shape)}"
        )
    if spec.levels is None:
        return images
    if images.dtype not in INTEGERS:
        raise GenzooError(f"images must be integers 0..{spec.levels - 1}, got {images.dtype}")
    if images.numel() and (int(images.max()) >= spec.levels or int(images.min()) < 0):
        raise GenzooError(
            f"images must lie in 0..{spec.levels - 1}, found {int(images.min())}..{int(images.max())}"
        )
    return images
