"""`load_data`: every source of images by its name."""

import inspect
import io
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from genzoo.core.bounds import Range, check_number, shown
from genzoo.core.errors import GenzooError
from genzoo.core.path_arguments import is_system_text, is_too_long, path_of, told_by_the_system
from genzoo.core.suggestions import suggestion
from genzoo.core.surroundings import in_plain_surroundings
from genzoo.data.arrays import PARTS, from_images
from genzoo.data.folder import load_folder
from genzoo.data.identity import digest_of_parts, vouched
from genzoo.data.image_data import SPLIT_SEED, ImageData, conditional_spec, permutation, protocol
from genzoo.data.known_data import CIFAR10_NAMES, CLOTHES, DIGIT_NAMES, KNOWN_TEST_SETS, THREE_DIGIT_NAMES
from genzoo.data.pairs import paired
from genzoo.data.split import BinarisedSplit, Split, TensorSplit, binarise
from genzoo.data.stacked_channels import stacked
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

TorchvisionSet = TypeVar("TorchvisionSet", "MNIST", "CIFAR10")

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
_MOST_RECORDED = 200  # names of classes that a run keeps of a named source
_DIGIT_SHARES = (0.2, 0.1)  # of each class to test and to val


@final
@dataclass(frozen=True)
class Request:
    """What the caller of `load_data` asked of a source: where data sets lie, and the condition (None or "class")."""

    name: str
    root: Path
    cond: str | None


@final
@dataclass(frozen=True)
class Source:
    """A source of images by its name: how it is loaded, what its classes are called, of which kind its images are."""

    name: str
    load: Callable[[Request], ImageData]
    class_names: tuple[str, ...] = ()
    """In the order of their numbers; () where they have none."""
    image_kind: str | None = None
    """A row of `genzoo.data.augmentation_presets`; None: guessed by the spec."""


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


@told_by_the_system()
@in_plain_surroundings
def load_data(
    name: str,
    root: str | Path | None = None,
    *,
    image_size: int | None = None,
    cond: str | None = None,
    skip_bad_images: bool = False,
    rules: int = 2,
    classes: Sequence[str] = (),
) -> ImageData:
    """The data called `name`: train, val and test splits, their spec and protocol.

    `name` is digits (8x8, 17 levels, part of scikit-learn), stacked-digits (three of those as the channels of
    one, 1,000 classes), mnist, mnist-binary, fashion-mnist or cifar10 (torchvision's files below `root`, else
    below $GENZOO_DATA, else ./data; downloaded where absent), `folder:PATH`, `toy:NAME`, or a registered name.
    `cond="class"` makes a spec for class-conditional models; mask, downsample, grey, edges or folder:INPUTS one for
    models that predict images from input images, see `genzoo.data.pairs`. `image_size` (pixels) and `skip_bad_images`
    concern `folder:` only, see `load_folder`; so do `rules` and `classes`, by which a run's folder is read as it was.

    Raises `GenzooError` for an unknown name, data that cannot be had, or options that do not fit the source.
    """
    _check_request(name, root, image_size, cond)
    if cond is not None and cond != "class":
        plain = load_data(
            name, root, image_size=image_size, skip_bad_images=skip_bad_images, rules=rules, classes=classes
        )
        return paired(plain, cond, rules)
    kind, colon, rest = name.partition(":")
    if kind == "folder" and rest:
        return load_folder(
            rest,
            image_size=image_size,
            cond=cond,
            skip_bad_images=skip_bad_images,
            rules=rules,
            classes=classes,
        )
    if kind == "toy" and colon and rest in TOYS:
        load: Callable[[Request], ImageData] = _load_toy
    elif name in _SOURCES:
        load = _SOURCES[name].load
    else:
        raise GenzooError(_unknown(name))
    if image_size is not None:
        raise GenzooError(f"--image-size goes with folder: only, {name} has a size of its own: leave it out")
    found = load(Request(name, Path(root or os.environ.get("GENZOO_DATA") or "data").expanduser(), cond))
    names = class_names_of(name)
    if not names or len(names) > _MOST_RECORDED or "classes" in found.protocol:
        return found
    return replace(found, protocol={**found.protocol, "classes": list(names)})


def _check_request(name: Any, root: Any, image_size: Any, cond: Any) -> None:
    """Raises `GenzooError` over an argument that can be none."""
    for what, text in (("the name of data", name), ("cond", cond)):
        if not is_system_text(text) and not (text is None and what == "cond"):
            raise GenzooError(f"{what} must be a text, got {shown(text)}")
        if text is not None and is_too_long(text):
            raise GenzooError(f"{what} holds a name that is too long for a file: {shown(text)}")
    if root is not None:
        path_of(root, "root")
    if image_size is not None:
        check_number("image_size", image_size, Range(1, 2**14), whole=True)


def register_data(
    name: str,
    load: Callable[..., Any],
    *,
    class_names: Sequence[str] = (),
    image_kind: str | None = None,
) -> None:
    """Makes `load_data(name)` and `--data NAME` call `load`.

    `load` is given those of `root` (a `Path`) and `cond` (None or "class") that it takes, and returns an `ImageData`,
    three splits (train, val, test), or one set of images that is split here; `genzoo.data.from_images` tells what a
    split or a set may be. `class_names` and `image_kind` are as in `Source`. Registering a name again replaces it.
    Raises `GenzooError` for a name of genzoo's own or one with a colon.
    """
    if not isinstance(name, str) or name in _OWN or ":" in name or not name.strip() or not name.isprintable():
        raise GenzooError(
            f"data cannot be called {shown(name)}: take a name without a colon that is not taken"
        )
    if not callable(load):
        raise GenzooError(f"data are loaded by a function, got {shown(load)}")
    _SOURCES[name] = Source(name, _Loader(load), tuple(class_names), image_kind)


@final
@dataclass(frozen=True)
class _Loader:
    """A user's function as the loader of a source."""

    function: Callable[..., Any]

    def __call__(self, request: Request) -> ImageData:
        offered = {"root": request.root, "cond": request.cond}
        taken = inspect.signature(self.function).parameters.values()
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
            found = self.function(**offered)
        else:
            found = self.function(**{p.name: offered[p.name] for p in taken if p.name in offered})
        return found if isinstance(found, ImageData) else from_images(request.name, found, request.cond)


def class_names_of(name: str) -> tuple[str, ...]:
    """What the classes of the source `name` are called; () where they have no names."""
    return _SOURCES[name].class_names if name in _SOURCES else ()


def image_kind_of(name: str) -> str | None:
    """The kind of the images of the source `name`, a row of `genzoo.data.augmentation_presets`; None: unknown."""
    return _SOURCES[name].image_kind if name in _SOURCES else None


def source_names() -> list[str]:
    """Every name that `load_data` takes; PATH stands for a folder.

    >>> "toy:gaussian" in source_names()
    True
    """
    return [*_SOURCES, "folder:PATH", *(f"toy:{toy}" for toy in TOYS)]


def _unknown(name: str) -> str:
    if name.partition(":")[0] == "folder":
        return "folder: needs a path: --data folder:PATH"
    if Path(name).is_dir():
        return f"unknown data {name!r}: to use this folder of images, write folder:{name}"
    return f"unknown data {shown(name)}: {suggestion(name, source_names())}"


def _load_digits(request: Request) -> ImageData:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    data = _Labelled(torch.from_numpy(bunch.images.astype(np.uint8))[:, None], torch.from_numpy(bunch.target))
    train, val, test = (data.part(p).split() for p in _stratified(bunch.target))
    test_id = vouched(f"digits/test@seed={SPLIT_SEED}", test, KNOWN_TEST_SETS["digits"])
    return _image_data(request, (train, val, test), test_id, levels=17)


def _load_stacked_digits(request: Request) -> ImageData:
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


def _load_mnist(request: Request) -> ImageData:
    from torchvision.datasets import MNIST

    return _load_plain(request, *_idx_files(request, MNIST))


def _load_fashion_mnist(request: Request) -> ImageData:
    from torchvision.datasets import FashionMNIST

    return _load_plain(request, *_idx_files(request, FashionMNIST))


def _load_mnist_binary(request: Request) -> ImageData:
    from torchvision.datasets import MNIST

    full, test = _idx_files(request, MNIST)
    train, val = _without_val(full)
    seeds = {"test": BINARISATION_SEED, "val": BINARISATION_SEED + 1, "train": BINARISATION_SEED + 2}
    splits = (
        BinarisedSplit(train.images, train.labels, seeds["train"]),
        TensorSplit(binarise(val.images, seeds["val"]), val.labels),
        TensorSplit(binarise(test.images, seeds["test"]), test.labels),
    )
    test_id = vouched(f"mnist-binary/test@seed={seeds['test']}", splits[2], KNOWN_TEST_SETS["mnist-binary"])
    more = {
        "binarisation": "dynamic, Bernoulli(grey/255); val and test drawn once",
        "binarisation_seeds": seeds,
    }
    return _image_data(request, splits, test_id, levels=2, more=more)


def _load_cifar10(request: Request) -> ImageData:
    from torchvision.datasets import CIFAR10

    tars = [request.root / "cifar10-jpeg" / f"{part}.tar" for part in ("train", "test")]
    if all(tar.exists() for tar in tars) and not (request.root / CIFAR10.base_folder).exists():
        raise GenzooError(
            f"cifar10 is not below {request.root} in torchvision's layout, but as JPEG: unpack it with "
            f"`mkdir DIR && tar xf {tars[0]} -C DIR && tar xf {tars[1]} -C DIR` and use folder:DIR"
        )
    full, test = (_cifar(_obtain(request, part, CIFAR10)) for part in (True, False))
    return _load_plain(request, full, test)


def _load_plain(request: Request, full: _Labelled, test: _Labelled) -> ImageData:
    train, val = _without_val(full)
    splits = (train.split(), val.split(), test.split())
    known = KNOWN_TEST_SETS.get(request.name)
    test_id = f"{request.name}/test"
    test_id = test_id if known is None else vouched(test_id, splits[2], known)
    return _image_data(request, splits, test_id, levels=256)


def _load_toy(request: Request) -> ImageData:
    truth = TOYS[request.name.partition(":")[2]]
    train, val, test = (
        TensorSplit(truth.sample(n, torch.Generator().manual_seed(_TOY_SEED + i)))
        for i, n in enumerate(_TOY_SIZES)
    )
    spec = conditional_spec(request.name, truth.spec.shape, truth.spec.levels, request.cond, 0)
    test_id = f"{request.name}/test@seed={_TOY_SEED}"
    # the last digits of a draw differ between processors: what was drawn is known by its recipe
    content = {
        part: digest_of_parts([repr(truth), str(n), str(_TOY_SEED), part])
        for part, n in zip(PARTS, _TOY_SIZES, strict=True)
    }
    more = {"truth": repr(truth), "content": content}
    about = protocol(request.name, (train, val, test), test_id, more)
    return ImageData(request.name, train, val, test, spec, about, truth)


_SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("digits", _load_digits, DIGIT_NAMES, "small-digits"),
        Source("stacked-digits", _load_stacked_digits, THREE_DIGIT_NAMES),
        Source("mnist", _load_mnist, DIGIT_NAMES, "digits"),
        Source("mnist-binary", _load_mnist_binary, DIGIT_NAMES, "digits"),
        Source("fashion-mnist", _load_fashion_mnist, CLOTHES, "garments"),
        Source("cifar10", _load_cifar10, CIFAR10_NAMES, "photographs"),
    )
}
_OWN = frozenset(_SOURCES)


def _image_data(
    request: Request,
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


def _idx_files(request: Request, source: "type[MNIST]") -> tuple[_Labelled, _Labelled]:
    full, test = (_obtain(request, part, source) for part in (True, False))
    return _idx(full), _idx(test)


def _idx(dataset: "MNIST") -> _Labelled:
    return _Labelled(dataset.data[:, None], torch.as_tensor(dataset.targets))


def _cifar(dataset: "CIFAR10") -> _Labelled:
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()  # [n, h, w, c] -> [n, c, h, w]
    return _Labelled(images, torch.tensor(dataset.targets))


def _obtain(request: Request, train: bool, source: type[TorchvisionSet]) -> TorchvisionSet:
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
