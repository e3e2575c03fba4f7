"""`load_data`: every source of images by its name."""

import difflib
import io
import os
import zlib
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.data.folder import load_folder
from genzoo.data.image_data import SPLIT_SEED, ImageData, conditional_spec, permutation, protocol
from genzoo.data.pairs import paired
from genzoo.data.split import BinarisedSplit, Split, TensorSplit, binarise
from genzoo.data.stacked import stacked
from genzoo.data.toy import (
    BernoulliTemplates,
    Density,
    DiscretisedMixture,
    Gaussian,
    GaussianGrid,
    GaussianMixture,
)

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10, MNIST

Source = TypeVar("Source", "MNIST", "CIFAR10")

BINARISATION_SEED = 0
"""Seed of the fixed draws of mnist-binary: this for test, plus 1 for val, plus 2 for train's `images`."""

TOYS: dict[str, Density] = {
    "gaussian": Gaussian(),
    "gaussian-mixture": GaussianMixture(),
    "gaussian-grid": GaussianGrid(),
    "bernoulli-templates": BernoulliTemplates(),
    "discretised-mixture": DiscretisedMixture(),
}
"""The analytic densities behind `toy:NAME`."""

_VAL_IMAGES = 5000  # cut off the training set of the torchvision sources
_TOY_SIZES = (20_000, 1_000, 2_000)
_TOY_SEED = 0
_DIGIT_SHARES = (0.2, 0.1)  # of each class to test and to val


@final
@dataclass(frozen=True)
class _Request:
    """What the caller of `load_data` asked of a source that has a plain name."""

    name: str
    root: Path
    cond: str | None


@final
@dataclass(frozen=True)
class _Labelled:
    """Images uint8 `[n, c, h, w]` and their classes long `[n]`."""

    images: Tensor
    labels: Tensor = field(repr=False)

    def part(self, positions: np.ndarray) -> "_Labelled":
        index = torch.from_numpy(positions)
        return _Labelled(self.images[index], self.labels[index])

    def split(self) -> TensorSplit:
        return TensorSplit(self.images, self.labels)


def load_data(
    name: str,
    root: str | Path | None = None,
    *,
    image_size: int | None = None,
    cond: str | None = None,
    skip_bad_images: bool = False,
) -> ImageData:
    """The data called `name`: train, val and test splits, their spec and protocol.

    `name` is digits (8x8, 17 levels, part of scikit-learn), stacked-digits (three of those as the channels of
    one, 1,000 classes), mnist, mnist-binary, fashion-mnist or cifar10 (torchvision's files below `root`, else
    below $GENZOO_DATA, else ./data; downloaded where absent), `folder:PATH` or `toy:NAME`. `cond="class"` makes
    a spec for class-conditional models; mask, downsample, grey, edges or folder:INPUTS one for models that
    predict images from input images, see `genzoo.data.pairs`.
    `image_size` (pixels) and `skip_bad_images` concern `folder:` only, see `load_folder`.

    Raises `GenzooError` for an unknown name, data that cannot be had, or options that do not fit the source.
    """
    if cond is not None and cond != "class":
        plain = load_data(name, root, image_size=image_size, skip_bad_images=skip_bad_images)
        return paired(plain, cond)
    kind, colon, rest = name.partition(":")
    if kind == "folder" and rest:
        return load_folder(rest, image_size=image_size, cond=cond, skip_bad_images=skip_bad_images)
    if kind == "toy" and colon and rest in TOYS:
        loader: Callable[[_Request], ImageData] = _load_toy
    elif name in _LOADERS:
        loader = _LOADERS[name]
    else:
        raise GenzooError(_unknown(name))
    if image_size is not None:
        raise GenzooError(f"--image-size goes with folder: only, {name} has a size of its own: leave it out")
    return loader(_Request(name, Path(root or os.environ.get("GENZOO_DATA") or "data").expanduser(), cond))


def source_names() -> list[str]:
    """Every name that `load_data` takes; PATH stands for a folder.

    >>> "toy:gaussian" in source_names()
    True
    """
    return [*_LOADERS, "folder:PATH", *(f"toy:{toy}" for toy in TOYS)]


def _unknown(name: str) -> str:
    if name.partition(":")[0] == "folder":
        return "folder: needs a path: --data folder:PATH"
    if Path(name).is_dir():
        return f"unknown data {name!r}: to use this folder of images, write folder:{name}"
    nearest = difflib.get_close_matches(name, source_names(), n=1, cutoff=0)[0]
    return f"unknown data {name!r}: did you mean {nearest!r}? (there are {', '.join(source_names())})"


def _load_digits(request: _Request) -> ImageData:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    data = _Labelled(torch.from_numpy(bunch.images.astype(np.uint8))[:, None], torch.from_numpy(bunch.target))
    train, val, test = (data.part(p).split() for p in _stratified(bunch.target))
    return _image_data(request, (train, val, test), f"digits/test@seed={SPLIT_SEED}", levels=17)


def _load_stacked_digits(request: _Request) -> ImageData:
    return stacked(_load_digits(replace(request, name="digits", cond=None)), cond=request.cond)


def _stratified(classes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted positions of train, val and test with every class in the same shares."""
    order = permutation(len(classes))
    parts: list[list[np.ndarray]] = [[], [], []]
    for label in np.unique(classes):
        of_class = order[classes[order] == label]
        n_test, n_val = (round(share * len(of_class)) for share in _DIGIT_SHARES)
        pieces = of_class[n_test + n_val :], of_class[n_test : n_test + n_val], of_class[:n_test]
        for part, piece in zip(parts, pieces, strict=True):
            part.append(piece)
    train, val, test = (np.sort(np.concatenate(p)) for p in parts)
    return train, val, test


def _load_mnist(request: _Request) -> ImageData:
    from torchvision.datasets import MNIST

    return _load_plain(request, *_idx_files(request, MNIST))


def _load_fashion_mnist(request: _Request) -> ImageData:
    from torchvision.datasets import FashionMNIST

    return _load_plain(request, *_idx_files(request, FashionMNIST))


def _load_mnist_binary(request: _Request) -> ImageData:
    from torchvision.datasets import MNIST

    full, test = _idx_files(request, MNIST)
    train, val = _without_val(full)
    seeds = {"test": BINARISATION_SEED, "val": BINARISATION_SEED + 1, "train": BINARISATION_SEED + 2}
    splits = (
        BinarisedSplit(train.images, train.labels, seeds["train"]),
        TensorSplit(binarise(val.images, seeds["val"]), val.labels),
        TensorSplit(binarise(test.images, seeds["test"]), test.labels),
    )
    test_id = f"mnist-binary/test@seed={seeds['test']}"
    more = {
        "binarisation": "dynamic, Bernoulli(grey/255); val and test drawn once",
        "binarisation_seeds": seeds,
    }
    return _image_data(request, splits, test_id, levels=2, more=more)


def _load_cifar10(request: _Request) -> ImageData:
    from torchvision.datasets import CIFAR10

    tars = [request.root / "cifar10-jpeg" / f"{part}.tar" for part in ("train", "test")]
    if all(tar.exists() for tar in tars) and not (request.root / CIFAR10.base_folder).exists():
        raise GenzooError(
            f"cifar10 is not below {request.root} in torchvision's layout, but as JPEG: unpack it with "
            f"`mkdir DIR && tar xf {tars[0]} -C DIR && tar xf {tars[1]} -C DIR` and use folder:DIR"
        )
    full, test = (_cifar(_obtain(request, part, CIFAR10)) for part in (True, False))
    return _load_plain(request, full, test)


def _load_plain(request: _Request, full: _Labelled, test: _Labelled) -> ImageData:
    train, val = _without_val(full)
    splits = (train.split(), val.split(), test.split())
    return _image_data(request, splits, f"{request.name}/test", levels=256)


def _load_toy(request: _Request) -> ImageData:
    truth = TOYS[request.name.partition(":")[2]]
    train, val, test = (
        TensorSplit(truth.sample(n, torch.Generator().manual_seed(_TOY_SEED + i)))
        for i, n in enumerate(_TOY_SIZES)
    )
    spec = conditional_spec(request.name, truth.spec.shape, truth.spec.levels, request.cond, 0)
    test_id = f"{request.name}/test@seed={_TOY_SEED}"
    about = protocol(request.name, (train, val, test), test_id, {"truth": repr(truth)})
    return ImageData(request.name, train, val, test, spec, about, truth)


_LOADERS: dict[str, Callable[[_Request], ImageData]] = {
    "digits": _load_digits,
    "stacked-digits": _load_stacked_digits,
    "mnist": _load_mnist,
    "mnist-binary": _load_mnist_binary,
    "fashion-mnist": _load_fashion_mnist,
    "cifar10": _load_cifar10,
}


def _image_data(
    request: _Request,
    splits: tuple[Split, Split, Split],
    test_id: str,
    *,
    levels: int,
    more: dict[str, str | dict[str, int]] | None = None,
) -> ImageData:
    """The ImageData of a source with ten classes."""
    shape = tuple(splits[2].images.shape[1:])
    spec = conditional_spec(request.name, shape, levels, request.cond, 10)
    return ImageData(request.name, *splits, spec, protocol(request.name, splits, test_id, more))


def _without_val(full: _Labelled) -> tuple[_Labelled, _Labelled]:
    order = permutation(len(full.labels))
    return full.part(np.sort(order[_VAL_IMAGES:])), full.part(np.sort(order[:_VAL_IMAGES]))


def _idx_files(request: _Request, source: "type[MNIST]") -> tuple[_Labelled, _Labelled]:
    full, test = (_obtain(request, part, source) for part in (True, False))
    return _idx(full), _idx(test)


def _idx(dataset: "MNIST") -> _Labelled:
    return _Labelled(dataset.data[:, None], torch.as_tensor(dataset.targets))


def _cifar(dataset: "CIFAR10") -> _Labelled:
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()  # [n, h, w, c] -> [n, c, h, w]
    return _Labelled(images, torch.tensor(dataset.targets))


def _obtain(request: _Request, train: bool, source: type[Source]) -> Source:
    """torchvision's data set below the root; only where it is not found there is it downloaded."""
    try:
        return source(str(request.root), train=train, download=False)
    except RuntimeError:  # torchvision's "not found"
        pass
    except (OSError, ValueError, zlib.error) as error:
        raise GenzooError(
            f"{request.name} below {request.root} cannot be read ({error}): remove it"
        ) from error
    try:
        with redirect_stdout(io.StringIO()):  # torchvision prints every mirror it tries; its bar is on stderr
            return source(str(request.root), train=train, download=True)
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GenzooError(
            f"{request.name} is not below {request.root} and could not be downloaded ({reason}): "
            "pass --data-root or set GENZOO_DATA to where torchvision's files are"
        ) from error
