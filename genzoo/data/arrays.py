"""Images that somebody has in memory, as data: three splits, a spec and a protocol of their own."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from genzoo.core.errors import GenzooError
from genzoo.data.identity import images_digest
from genzoo.data.image_data import ImageData, conditional_spec, permutation, protocol
from genzoo.data.split import LazyImages, Split, TensorSplit, as_split

TEST_SHARE, VAL_SHARE = 0.1, 0.1
"""Of a set that comes in one piece."""
PARTS = ("train", "val", "test")
HASHED = 1000  # images, evenly spaced, whose content named a test set in former versions


def from_images(name: str, content: Any, cond: str | None = None) -> ImageData:
    """Data called `name` from three splits or from one set of images, which is cut into train, val and test.

    A split is a `Split`, a uint8 tensor `[n, c, h, w]`, `(images, labels)`, or a `Dataset` of images or of pairs; three
    come as `(train, val, test)` or as a mapping with these keys. Float tensors are real-valued data. Images have 256
    levels. `cond` "class" makes the spec of class-conditional models. Raises `GenzooError` for anything else.
    """
    if isinstance(content, ImageData):
        return content
    if isinstance(content, Mapping):
        missing = [part for part in PARTS if part not in content]
        if missing:
            raise GenzooError(
                f"{name}: a mapping of splits needs train, val and test; {missing[0]} is missing"
            )
        content = tuple(content[part] for part in PARTS)
    three = isinstance(content, (tuple, list)) and len(content) == len(PARTS)
    splits = tuple(_split(name, part) for part in content) if three else _cut(_split(name, content))
    train, val, test = splits
    real = train.images.dtype.is_floating_point
    labels = train.labels
    classes = 0 if labels is None or labels.ndim != 1 else 1 + max(_largest(split) for split in splits)
    shape = tuple(train.images.shape[1:])
    spec = conditional_spec(name, shape, None if real else 256, cond, classes)
    about = protocol(name, splits, f"{name}/test@images={images_digest(test)}")
    about["former_test_id"] = f"{name}/test@images={_former_digest(test)}"
    return ImageData(name, train, val, test, spec, about)


def _split(name: str, content: Any) -> Split:
    if isinstance(content, Split):
        return content
    if isinstance(content, Dataset):
        return _read(name, content)
    if isinstance(content, Tensor) or (isinstance(content, (tuple, list)) and len(content) == 2):
        return as_split(content)  # pyright: ignore[reportArgumentType]
    raise GenzooError(
        f"{name}: a split is a tensor, (images, labels), a Split or a torch Dataset, got {type(content).__name__}"
    )


def _read(name: str, dataset: Dataset) -> TensorSplit:
    """A map-style data set, read whole."""
    items = [dataset[i] for i in range(len(dataset))]  # pyright: ignore[reportArgumentType]
    pairs = [item if isinstance(item, (tuple, list)) else (item, None) for item in items]
    if not pairs or not all(isinstance(image, Tensor) for image, _ in pairs):
        raise GenzooError(f"{name}: a data set must hold tensors [c, h, w], or pairs of one and its class")
    images = torch.stack([image for image, _ in pairs])
    if any(label is None for _, label in pairs):
        return TensorSplit(images)
    return TensorSplit(images, torch.as_tensor([int(label) for _, label in pairs]))


def _cut(whole: Split) -> tuple[Split, Split, Split]:
    """Train, val and test of one set, in the fixed order of `permutation`."""
    order = torch.from_numpy(permutation(len(whole)))
    n_test, n_val = (max(1, round(share * len(whole))) for share in (TEST_SHARE, VAL_SHARE))
    parts = order[n_test + n_val :], order[n_test : n_test + n_val], order[:n_test]
    if min(map(len, parts)) == 0:
        raise GenzooError(f"{len(whole)} images are too few for a training, a validation and a test split")
    train, val, test = (TensorSplit(*whole.batch(part.sort().values)) for part in parts)
    return train, val, test


def _largest(split: Split) -> int:
    return -1 if split.labels is None or not len(split.labels) else int(split.labels.max())


def _former_digest(split: Split) -> str:
    """What former versions called a test set by: of the content of some of the images."""
    images = split.images
    if isinstance(images, LazyImages) or len(images) > HASHED:
        images = images[torch.linspace(0, len(split) - 1, min(len(split), HASHED)).long()]
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()[:12]
