"""Pairs of images and inputs: every corruption by hand, two folders matched and refused, and what is recorded."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data import (
    BinarisedSplit,
    Corrupted,
    Downsample,
    Edges,
    Grey,
    Mask,
    PairedSplit,
    TensorSplit,
    load_data,
    load_folder,
    paired,
    validate,
)
from genzoo.models.run_data import DataArguments
from genzoo.objectives.dequantisation import bin_centres


def random_images(n, c, h, w, levels=256):
    return torch.randint(levels, (n, c, h, w), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def assert_refused(call, *words):
    with pytest.raises(GenzooError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


# --- corruptions by hand -------------------------------------------------------------------------------------------


def test_the_mask_hides_the_middle_and_nothing_else():
    x = random_images(2, 3, 4, 6, 17)
    y = Mask()(x, 17)
    expected = bin_centres(x, 17, torch.float32)  # what a model takes for x: the visible part is x itself
    expected[:, :, 1:3, 1:4] = 0.0
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize(
    ("side", "hidden"), [(2, [0]), (3, [0, 1]), (8, [2, 3, 4, 5]), (28, [*range(7, 21)])]
)
def test_half_of_a_side_is_hidden(side, hidden):
    y = Mask()(torch.full((1, 1, side, 4), 255, dtype=torch.uint8), 256)
    assert (y[0, 0, :, 1] == 0).nonzero().flatten().tolist() == hidden


def test_blocks_become_their_means():
    x = torch.tensor([[0, 2, 4], [2, 0, 8], [1, 3, 5]], dtype=torch.uint8)[None, None]
    y = Downsample(2)(x, 10)
    means = torch.tensor([[1.0, 1.0, 6.0], [1.0, 1.0, 6.0], [2.0, 2.0, 5.0]])
    torch.testing.assert_close(y[0, 0], (2 * means + 1) / 10 - 1)


def test_grey_is_the_weighted_mean_of_the_channels():
    x = torch.tensor([100, 200, 50], dtype=torch.uint8).view(1, 3, 1, 1)
    y = Grey()(x, 256)
    assert y.shape == (1, 1, 1, 1)
    level = 0.299 * 100 + 0.587 * 200 + 0.114 * 50
    assert y.item() == pytest.approx((2 * level + 1) / 256 - 1, abs=1e-6)


def test_grey_images_have_nothing_to_colour():
    assert_refused(lambda: Grey()(random_images(1, 1, 4, 4), 256), "1 channel", "use mask")


def test_edges_of_a_step_and_of_a_slope():
    """A full step has Sobel slope 1 in the two columns beside it; a step of a tenth stays below the threshold."""
    x = torch.zeros(1, 1, 3, 6, dtype=torch.uint8)
    x[..., 3:] = 10
    y = Edges(0.2)(x, 11)
    assert y[0, 0].tolist() == [[-1, -1, 1, 1, -1, -1]] * 3
    assert (Edges(0.2)(x // 10, 11) == -1).all()
    assert torch.equal(Edges(0.2)(x.mT, 11), y.mT)
    assert (Edges(0.999)(x, 11) == y).all() and (Edges(1.001)(x, 11) == -1).all()


def test_edges_of_colour_are_those_of_brightness():
    x = random_images(3, 3, 7, 5)
    assert Edges()(x, 256).shape == (3, 1, 7, 5)
    assert not torch.equal(Edges()(x, 256), Edges()(x.flip(1), 256))  # red and blue do not weigh the same


@pytest.mark.parametrize("corruption", [Mask(), Downsample(), Edges()], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("shape", [(1, 1, 9), (1, 2, 2), (3, 5, 7)], ids=str)
def test_any_size_will_do(corruption, shape):
    y = corruption(random_images(2, *shape, 5), 5)
    assert y.shape[2:] == shape[1:] and y.abs().max() <= 1 and y.dtype == torch.float32


# --- splits --------------------------------------------------------------------------------------------------------


def test_batches_labels_and_items_agree():
    x = random_images(6, 1, 4, 4)
    split = PairedSplit(TensorSplit(x, torch.arange(6)), Corrupted(Mask(), 256))
    batch = split.batch(torch.tensor([4, 1]))
    assert torch.equal(batch.images, x[[4, 1]])
    assert torch.equal(batch.cond, Mask()(x[[4, 1]], 256).flatten(1))
    assert torch.equal(split.labels[[4, 1]], batch.cond)
    image, vector = split[-2]
    assert torch.equal(image, x[4]) and torch.equal(vector, batch.cond[0])
    images, vectors = next(iter(DataLoader(pickle.loads(pickle.dumps(split)), batch_size=6)))
    assert torch.equal(images, x) and torch.equal(vectors, split.labels)


def test_inputs_belong_to_the_image_that_was_drawn():
    """Where images are drawn anew, so are their inputs: what is not hidden is the image itself."""
    split = PairedSplit(BinarisedSplit(random_images(50, 1, 4, 4)), Corrupted(Mask(), 2))
    fixed, indices = split.batch(torch.arange(50)), torch.arange(50)
    drawn = split.batch(indices, torch.Generator().manual_seed(3))
    assert not torch.equal(drawn.images, fixed.images)
    for batch in (fixed, drawn):
        assert torch.equal(batch.cond, Mask()(batch.images, 2).flatten(1))


def test_validation_asks_for_one_input_only():
    asked = []

    def inputs(images, indices):
        asked.append(len(indices))
        return images.float()

    validate(
        PairedSplit(TensorSplit(random_images(50, 1, 2, 2)), inputs), DataSpec((1, 2, 2), 256, "vector", 4)
    )
    assert asked == [1]


# --- sources -------------------------------------------------------------------------------------------------------


def test_load_data_pairs_any_source_and_says_so():
    plain, data = load_data("digits"), load_data("digits", cond="downsample")
    assert data.spec == DataSpec((1, 8, 8), 17, "vector", 64)
    assert torch.equal(data.test.images, plain.test.images)
    y = data.test.batch(torch.arange(3)).cond.view(3, 1, 8, 8)
    means = plain.test.images[:3].float().unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5))
    torch.testing.assert_close(y[:, :, ::4, ::4], (2 * means + 1) / 17 - 1)
    assert data.protocol["input"] == {"cond": "downsample", "recipe": "means over 4x4 blocks", "channels": 1}
    assert data.protocol["test_id"] == plain.protocol["test_id"] + ",input=downsample"


def test_the_arguments_of_a_run_load_the_same_pairs():
    arguments = DataArguments("digits", cond="mask")
    recorded = arguments.protocol(arguments.load())["arguments"]
    again = DataArguments(**recorded).load()
    assert torch.equal(again.val.labels, arguments.load().val.labels) and again.spec.cond == "vector"


@pytest.mark.parametrize(
    ("name", "cond", "words"),
    [
        ("digits", "blur", ("'blur'", "mask, downsample, grey, edges or folder:INPUTS")),
        ("digits", "folder:", ("'folder:'",)),
        ("digits", "grey", ("nothing to colour",)),
        ("digits", "folder:somewhere", ("folder: too", "digits")),
        ("toy:gaussian", "mask", ("no images", "leave cond out")),
    ],
)
def test_what_cannot_be_paired_is_refused(name, cond, words):
    assert_refused(lambda: load_data(name, cond=cond), *words)


# --- two folders ---------------------------------------------------------------------------------------------------


def fill(folder: Path, names, *, size=(8, 8), channels=3, seed=0) -> Path:
    random = np.random.RandomState(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.randint(0, 256, (size[1], size[0], channels), dtype=np.uint8)
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(path)
    return folder


NAMES = [f"{part}/{i}.png" for part in ("train", "val", "test") for i in range(4)]


def test_two_folders_are_matched_by_name(tmp_path):
    targets = fill(tmp_path / "targets", NAMES)
    inputs = fill(
        tmp_path / "inputs", [n.replace("png", "bmp") for n in NAMES] + ["train/odd.png"], channels=1, seed=1
    )
    data = load_data(f"folder:{targets}", cond=f"folder:{inputs}")
    assert data.spec == DataSpec((3, 8, 8), 256, "vector", 64)
    for part in ("train", "val", "test"):
        split = data.split(part)
        for i, path in enumerate(split.split.paths):
            pixels = np.array(Image.open(inputs / part / f"{path.stem}.bmp"), dtype=np.float32)
            expected = (2 * torch.from_numpy(pixels).flatten() + 1) / 256 - 1
            torch.testing.assert_close(split.batch(torch.tensor([i])).cond[0], expected)
    assert data.protocol["input"]["channels"] == 1 and len(data.test) == 4


def test_a_split_that_is_cut_off_keeps_its_pairs(tmp_path):
    """The inputs are copies of the targets, so that each must equal its own image, streamed or not."""
    names = [f"{i:02}.png" for i in range(30)]
    targets, inputs = fill(tmp_path / "a", names), fill(tmp_path / "b", names)
    for limit in (0, 2**30):
        data = paired(load_folder(targets, memory_limit_bytes=limit), f"folder:{inputs}")
        for split in (data.train, data.val, data.test):
            images, cond = split.batch(torch.arange(len(split)))
            torch.testing.assert_close(cond, bin_centres(images, 256, torch.float32).flatten(1))
            assert torch.equal(split.labels, cond)


def test_inputs_of_another_size_are_resized_as_the_images_are(tmp_path):
    targets = fill(tmp_path / "a", NAMES, size=(12, 8))
    fill(tmp_path / "b", NAMES, size=(12, 8))
    for name in NAMES:
        file = tmp_path / "b" / name
        Image.open(file).resize((24, 16), Image.Resampling.NEAREST).save(file)
    data = load_data(f"folder:{targets}", image_size=4, cond=f"folder:{tmp_path / 'b'}")
    images, cond = data.test.batch(torch.arange(4))
    assert cond.shape == (4, 48)
    near = (cond - bin_centres(images, 256, torch.float32).flatten(1)).abs().mean()
    far = (cond - bin_centres(images.roll(1, 0), 256, torch.float32).flatten(1)).abs().mean()
    assert near < 0.2 * far  # the same picture, from twice as many pixels


def test_mistakes_of_folders_are_named(tmp_path):
    targets = fill(tmp_path / "a", NAMES)
    some = fill(tmp_path / "b", NAMES[1:])

    def load(inputs):
        return lambda: load_data(f"folder:{targets}", cond=f"folder:{inputs}")

    assert_refused(load(some), "no input for train/0.png", "add train/0")
    assert_refused(load(tmp_path / "c"), "no folder", "--cond folder:")
    twice = fill(tmp_path / "d", [*NAMES, "train/0.bmp"])
    assert_refused(load(twice), "two inputs of one name", "0.bmp and 0.png")
