"""Splits and named sources: what is in them, what is random about them, and what they refuse."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data import BinarisedSplit, LazyImages, TensorSplit, as_split, load_data, validate
from genzoo.data.image_data import permutation

ROOT = Path(os.environ.get("GENZOO_DATA", "data"))


def needs(folder: str):
    return pytest.mark.skipif(not (ROOT / folder / "raw").is_dir(), reason=f"no {folder} under $GENZOO_DATA")


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def images(n=6, levels=256, shape=(1, 4, 4)) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(levels, (n, *shape), generator=g, dtype=torch.uint8)


@pytest.fixture(scope="module")
def mnist():
    return load_data("mnist", ROOT)


@pytest.fixture(scope="module")
def binary():
    return load_data("mnist-binary", ROOT)


# --- splits -------------------------------------------------------------------------------------------------


def test_as_split_takes_what_fit_takes():
    x, y = images(), torch.arange(6)
    assert torch.equal(as_split(x).images, x) and as_split(x).labels is None
    assert torch.equal(as_split((x, y.int())).labels, y)
    split = TensorSplit(x, y)
    assert as_split(split) is split
    vectors = as_split((x, torch.zeros(6, 3)))
    assert vectors.batch(torch.tensor([1, 2])).cond.shape == (2, 3)
    assert as_split(torch.randn(5, 2)).batch(torch.tensor([0])).images.dtype == torch.float32
    assert as_split(x.long()).images.dtype == torch.long


def test_batch_gives_the_rows_asked_for():
    split = TensorSplit(images(), torch.arange(6) * 10)
    batch = split.batch(torch.tensor([4, 1, 4]))
    assert torch.equal(batch.images, images()[[4, 1, 4]])
    assert batch.cond.tolist() == [40, 10, 40]
    assert TensorSplit(images()).batch(torch.tensor([0])).cond is None


@pytest.mark.parametrize(("labels", "expected"), [(torch.arange(6), [0, 1, 2, 3]), (None, [-1] * 4)])
def test_a_split_is_a_dataset(labels, expected):
    pictures, answers = next(iter(DataLoader(TensorSplit(images(), labels), batch_size=4)))
    assert torch.equal(pictures, images()[:4])
    assert answers.tolist() == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, 2], "must be a torch tensor"),
        (torch.zeros(3, 1, 2, 2, dtype=torch.int32), "uint8 or long .* got int32"),
        (torch.zeros(3, 1, 2, 2, dtype=torch.bool), "got bool"),
        (torch.zeros(3, 2, 2, dtype=torch.uint8), r"\[n, c, h, w\], got \(3, 2, 2\)"),
        (torch.zeros(0, 1, 2, 2, dtype=torch.uint8), "no images"),
        (torch.zeros(3), r"\[n, \.\.\.\], got \(3,\)"),
        ((images(), torch.arange(5)), "lengths differ: 6 images and 5 labels"),
        ((images(), torch.zeros(6)), "labels must be integers"),
        ((images(), torch.zeros(6, 2, dtype=torch.long)), "labels must be integers"),
        ((images(), ["a"] * 6), "classes or vectors, as a tensor, an array or a list"),
        ((images(), torch.arange(6), 1), "tuple of 3"),
    ],
)
def test_as_split_refuses(data, message):
    with pytest.raises(GenzooError, match=message) as error:
        as_split(data)
    one_line(error)


SPEC = DataSpec((1, 4, 4), levels=256)
CLASSES = DataSpec((1, 4, 4), levels=256, cond="class", cond_size=10)
VECTORS = DataSpec((1, 4, 4), levels=256, cond="vector", cond_size=3)
WRONG = torch.tensor([0, 1, 12, 3, 4, 5])


@pytest.mark.parametrize(
    ("data", "spec", "message"),
    [
        (images(shape=(3, 4, 4)), SPEC, r"shape \(3, 4, 4\), the model was made for \(1, 4, 4\)"),
        (images(), DataSpec((1, 4, 4), levels=17), r"found \d+, the spec has 17 levels \(0\.\.16\)"),
        (images().long() - 999, SPEC, "values out of range: found -"),
        (torch.rand(6, 1, 4, 4), SPEC, "must be integers"),
        (images(), DataSpec((1, 4, 4), levels=None), "must be float"),
        (torch.full((2, 3), torch.nan), DataSpec((3,), levels=None), "NaN"),
        ((images(), WRONG), CLASSES, r"^labels out of range: found 12, the spec has 10 classes \(0\.\.9\)$"),
        ((images(), -WRONG), CLASSES, "labels out of range: found -12"),
        (images(), CLASSES, "no labels"),
        ((images(), torch.zeros(6, 10)), CLASSES, "has vectors"),
        ((images(), torch.zeros(6, 4)), VECTORS, "vectors are 4 wide, the spec has cond_size 3"),
        ((images(), torch.arange(6)), VECTORS, "class labels"),
    ],
)
def test_validate_refuses(data, spec, message):
    with pytest.raises(GenzooError, match=message) as error:
        validate(as_split(data), spec)
    one_line(error)


@pytest.mark.parametrize(
    ("data", "spec"),
    [
        (images(), SPEC),
        ((images(), torch.arange(6)), SPEC),
        ((images(), torch.arange(6)), CLASSES),
        ((images(), torch.zeros(6, 3)), VECTORS),
        (torch.randn(4, 2), DataSpec((2,), levels=None)),
    ],
)
def test_validate_accepts(data, spec):
    assert validate(as_split(data), spec) is None  # it raises what it does not accept


# --- streaming ----------------------------------------------------------------------------------------------


def test_lazy_images_index_like_a_tensor():
    x = images(10)
    lazy = LazyImages(lambda i: x[i], x.shape)
    mask = torch.arange(10) % 3 == 0
    for key in (3, -1, slice(2, 7, 2), slice(None), torch.tensor([5, 5, 0]), mask, [1, 2], torch.tensor(4)):
        assert torch.equal(lazy[key], x[key]), key
    assert torch.equal(lazy[torch.tensor([[1, 2], [3, 4]])], x[torch.tensor([[1, 2], [3, 4]])])
    assert lazy[slice(0, 0)].shape == (0, 1, 4, 4)
    assert len(lazy) == 10 and lazy.shape == x.shape and lazy.dtype == x.dtype
    assert torch.equal(torch.stack(list(lazy)), x)  # iteration ends
    with pytest.raises(IndexError):
        lazy[10]
    with pytest.raises(TypeError, match="by image only"):
        lazy[:, 0]


# --- binarisation -------------------------------------------------------------------------------------------


def test_binarised_split_redraws_by_generator_only():
    grey = images(50, shape=(1, 8, 8))
    split, twin = BinarisedSplit(grey, seed=1), BinarisedSplit(grey, seed=1)
    i = torch.arange(50)

    def draw(seed):
        return split.batch(i, torch.Generator().manual_seed(seed)).images

    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
    fixed = split.batch(i).images
    assert torch.equal(fixed, split.images) and torch.equal(fixed, twin.images)
    assert torch.equal(split[3][0], fixed[3])
    assert not torch.equal(fixed, draw(0)) and not torch.equal(fixed, BinarisedSplit(grey, seed=2).images)
    assert split.images.dtype == torch.uint8 and set(split.images.unique().tolist()) == {0, 1}


def test_binarised_frequencies_are_grey_over_255():
    grey = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(4000, 1, 16, 16)
    split = BinarisedSplit(grey)
    expected = torch.arange(256) / 255
    for drawn in (split.images, split.batch(torch.arange(4000), torch.Generator().manual_seed(0)).images):
        mean = drawn.float().mean(0).flatten()
        assert mean[0] == 0 and mean[255] == 1  # black and white pixels are never flipped
        error = (mean - expected) / (expected * (1 - expected) / 4000).sqrt().clamp(min=1e-9)
        assert error.abs().max() < 4.5 and error[1:255].std() < 1.2


def test_the_fixed_draw_is_the_same_for_ever():
    grey = torch.full((1, 1, 4, 4), 128, dtype=torch.uint8)
    assert BinarisedSplit(grey, seed=0).images.flatten().tolist() == [
        0,
        1,
        1,
        0,
        1,
        0,
        0,
        0,
        1,
        0,
        1,
        0,
        0,
        0,
        1,
        0,
    ]


def test_binarised_split_takes_bytes_only():
    with pytest.raises(GenzooError, match="must be uint8"):
        BinarisedSplit(images().long())


# --- sources ------------------------------------------------------------------------------------------------


def rows(x: torch.Tensor) -> set[bytes]:
    return {bytes(r) for r in x.flatten(1).numpy()}


def test_digits_are_split_once_and_by_class():
    data, again = load_data("digits"), load_data("digits", cond="class")
    parts = data.train, data.val, data.test
    assert sum(map(len, parts)) == 1797
    assert data.protocol["sizes"] == {"train": len(data.train), "val": len(data.val), "test": len(data.test)}
    assert abs(len(data.test) - 360) < 10 and abs(len(data.val) - 180) < 10
    assert sum(len(rows(p.images)) for p in parts) == len(
        rows(torch.cat([p.images for p in parts]))
    )  # disjoint
    for a, b in zip(parts, (again.train, again.val, again.test), strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        share = torch.bincount(a.labels, minlength=10) / len(a)
        assert (share - 0.1).abs().max() < 0.01
    assert data.spec == DataSpec((1, 8, 8), levels=17)
    assert again.spec == DataSpec((1, 8, 8), levels=17, cond="class", cond_size=10)
    assert data.train.images.dtype == torch.uint8 and data.train.images.max() == 16
    validate(again.test, again.spec)


def test_splits_are_the_same_in_every_version():
    """Figures are compared by the name of a test set: what goes by it must never change."""
    assert permutation(8).tolist() == [6, 2, 1, 7, 3, 0, 5, 4]
    data = load_data("digits")
    assert data.protocol["test_id"] == "digits/test@seed=0" and data.protocol["split_seed"] == 0
    for split, labels, total in (
        (data.train, [0, 3, 7, 8, 0, 1, 2, 3], 394029),
        (data.val, [1, 2, 2, 7, 1, 3, 0, 0], 56256),
        (data.test, [4, 5, 6, 9, 4, 7, 8, 9], 111433),
    ):
        assert split.labels[:8].tolist() == labels and split.images.long().sum().item() == total


def test_digits_keep_their_labels():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    label_of = {
        bytes(x.astype("uint8").ravel()): int(y) for x, y in zip(bunch.images, bunch.target, strict=True)
    }
    test = load_data("digits").test
    assert [label_of[bytes(x.numpy().ravel())] for x in test.images] == test.labels.tolist()


@needs("MNIST")
def test_mnist_sizes_and_test_set(mnist):
    from torchvision.datasets import MNIST

    assert [len(s) for s in (mnist.train, mnist.val, mnist.test)] == [55_000, 5_000, 10_000]
    official = MNIST(str(ROOT), train=False)
    assert torch.equal(mnist.test.images[:, 0], official.data)
    assert torch.equal(mnist.test.labels, official.targets)
    whole = MNIST(str(ROOT), train=True).data
    both = torch.cat([mnist.train.images, mnist.val.images])
    assert int(both.long().sum()) == int(whole.long().sum())
    assert len(rows(torch.cat([both, mnist.test.images]))) == 70_000  # MNIST holds no image twice
    validate(mnist.train, mnist.spec)


@needs("MNIST")
def test_binary_mnist_protocol(mnist, binary):
    again = load_data("mnist-binary", ROOT)
    assert binary.spec.levels == 2
    assert binary.protocol["test_id"] == "mnist-binary/test@seed=0"
    assert binary.protocol["binarisation_seeds"]["test"] == 0
    for split, twin in ((binary.val, again.val), (binary.test, again.test)):
        assert torch.equal(split.images, twin.images)
        drawn = split.batch(torch.arange(9), torch.Generator().manual_seed(0)).images
        assert torch.equal(drawn, split.images[:9])  # a generator does not redraw what is measured on
    assert torch.equal(binary.train.grey, mnist.train.images)
    validate(binary.test, binary.spec)
    grey = mnist.test.images.double() / 255
    error = (binary.test.images.double().mean() - grey.mean()) / (
        (grey * (1 - grey)).mean() / grey.numel()
    ).sqrt()
    assert abs(error) < 4.5
    assert not torch.equal(binary.test.images, (mnist.test.images > 127).to(torch.uint8))


@needs("FashionMNIST")
def test_fashion_mnist():
    data = load_data("fashion-mnist", ROOT, cond="class")
    assert [len(s) for s in (data.train, data.val, data.test)] == [55_000, 5_000, 10_000]
    assert data.spec == DataSpec((1, 28, 28), 256, "class", 10)
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10


@needs("MNIST")
def test_root_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("GENZOO_DATA", str(ROOT.resolve()))
    assert len(load_data("mnist").test) == 10_000


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("minst", {}, "unknown data 'minst': did you mean 'mnist'"),
        ("cifar", {}, "did you mean 'cifar10'"),
        ("toy:gausian", {}, "did you mean 'toy:gaussian'"),
        ("mnist:x", {}, "unknown data 'mnist:x'"),
        ("", {}, "unknown data ''"),
        ("folder:", {}, "folder: needs a path"),
        ("digits", {"image_size": 16}, "--image-size goes with folder: only"),
        ("digits", {"cond": "vector"}, 'cond must be None or "class"'),
    ],
)
def test_load_data_refuses(name, options, message):
    with pytest.raises(GenzooError, match=message) as error:
        load_data(name, **options)
    one_line(error)


def test_a_bare_folder_is_pointed_to_folder(tmp_path):
    with pytest.raises(GenzooError, match=f"write folder:{tmp_path}"):
        load_data(str(tmp_path))


def test_log_prob_needs_a_known_density():
    data = load_data("digits")
    with pytest.raises(GenzooError, match="density of digits is unknown"):
        data.log_prob(data.test.images)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_failed_download_is_one_line(name, tmp_path, monkeypatch, capsys):
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens on the discard port
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(GenzooError, match=f"{name} is not below .* could not be downloaded") as error:
        load_data(name, tmp_path)
    assert "--data-root" in one_line(error)
    assert capsys.readouterr().out == ""


def test_cifar_jpeg_tars_are_explained(tmp_path):
    (tmp_path / "cifar10-jpeg").mkdir()
    for part in ("train", "test"):
        (tmp_path / "cifar10-jpeg" / f"{part}.tar").touch()
    with pytest.raises(GenzooError, match=r"unpack it with .*tar xf .*train\.tar.* and use folder:") as error:
        load_data("cifar10", tmp_path)
    one_line(error)


def test_cifar_files_are_read(tmp_path, monkeypatch):
    """A tiny data set in CIFAR-10's pickled layout; only the checksums of the real files are replaced."""
    import hashlib
    import pickle

    import numpy as np
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    g = np.random.RandomState(0)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def part(n):
        return {
            "data": g.randint(0, 256, (n, 3072), dtype=np.uint8),
            "labels": list(map(int, g.randint(0, 10, n))),
        }

    train, test = part(5010), part(7)
    monkeypatch.setattr(CIFAR10, "train_list", [write("data_batch_1", train)])
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", test)])
    name, digest = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": digest})
    data = load_data("cifar10", tmp_path)
    assert [len(s) for s in (data.train, data.val, data.test)] == [10, 5000, 7]
    assert (
        data.test.images.flatten(1).numpy().tolist() == test["data"].tolist()
    )  # stored [3, 32, 32], red first
    assert data.test.labels.tolist() == test["labels"]
    assert data.spec == DataSpec((3, 32, 32), 256)


def test_importing_data_is_light():
    code = "import sys, genzoo.data; print({'torchvision', 'sklearn', 'PIL', 'scipy'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
