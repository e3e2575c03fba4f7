"""`folder:`: a person's own images of every kind, their splits and classes, and every mistake in one line."""

import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data import LazyImages, load_data, load_folder, validate
from genzoo.data.pictures import ImageReader, read_header

TARS = Path(os.environ.get("GENZOO_DATA", "data")) / "cifar10-jpeg"


def picture(seed=0, size=(6, 6), channels=3) -> Image.Image:
    pixels = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def fill(folder: Path, n: int, start=0, **options) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + n):
        picture(i, **options).save(folder / f"{i:03}.png")
    return folder


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


def message(folder, **options) -> str:
    with pytest.raises(GenzooError) as error:
        load_folder(folder, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def decode(path: Path, channels=3) -> np.ndarray:
    header = read_header(path)
    return ImageReader((path,), (channels, header.height, header.width), False).decode(path)


# --- modes --------------------------------------------------------------------------------------------------


def test_one_bit(tmp_path):
    image = Image.fromarray(np.array([[True, False], [False, True]]))
    assert image.mode == "1"
    image.save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", 1)[0].tolist() == [[255, 0], [0, 255]]
    assert read_header(tmp_path / "a.png").grey


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "webp"])
def test_grey_and_colour_are_lossless(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    grey = picture(1, channels=1)
    grey.save(tmp_path / f"grey.{suffix}", **options)
    colour = picture(2)
    colour = colour.quantize(64).convert("RGB") if suffix == "gif" else colour
    colour.save(tmp_path / f"colour.{suffix}", **options)
    np.testing.assert_array_equal(
        decode(tmp_path / f"colour.{suffix}"), np.asarray(colour).transpose(2, 0, 1)
    )
    np.testing.assert_array_equal(decode(tmp_path / f"grey.{suffix}", 1)[0], np.asarray(grey))
    assert not read_header(tmp_path / f"colour.{suffix}").grey
    assert read_header(tmp_path / f"grey.{suffix}").grey == (suffix != "webp")  # WebP has no grey


def test_transparency_is_laid_on_white(tmp_path):
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], dtype=np.uint8)
    Image.fromarray(rgba, "RGBA").save(tmp_path / "rgba.png")
    got = decode(tmp_path / "rgba.png").transpose(1, 2, 0)[0]
    assert got.tolist() == [[255, 0, 0], [255, 255, 255], [127, 127, 127]]
    Image.fromarray(np.array([[[10, 255], [10, 0]]], dtype=np.uint8), "LA").save(tmp_path / "la.png")
    assert decode(tmp_path / "la.png", 1)[0].tolist() == [[10, 255]]
    assert read_header(tmp_path / "la.png").grey and not read_header(tmp_path / "rgba.png").grey


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette_with_and_without_transparency(tmp_path, suffix):
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    assert image.mode == "P"
    image.save(tmp_path / f"p.{suffix}")
    assert decode(tmp_path / f"p.{suffix}").transpose(1, 2, 0)[0].tolist() == [
        [200, 0, 0],
        [0, 200, 0],
        [0, 0, 200],
    ]
    image.save(tmp_path / f"t.{suffix}", transparency=1)
    assert decode(tmp_path / f"t.{suffix}").transpose(1, 2, 0)[0].tolist() == [
        [200, 0, 0],
        [255] * 3,
        [0, 0, 200],
    ]
    assert not read_header(tmp_path / f"p.{suffix}").grey
    image.putpalette([9, 9, 9, 100, 100, 100, 250, 250, 250])
    image.save(tmp_path / f"g.{suffix}")
    assert read_header(tmp_path / f"g.{suffix}").grey
    assert decode(tmp_path / f"g.{suffix}", 1)[0].tolist() == [[9, 100, 250]]


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_transparent_colour_without_alpha(tmp_path, mode):
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((1, 0), 1 if mode == "1" else 60 if mode == "L" else (60, 60, 60))
    image.save(tmp_path / "a.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert decode(tmp_path / "a.png", 1)[0].tolist() == [[255, 255 if mode == "1" else 60]]


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    deep = np.array([[0, 257, 65535, 40000, 128]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode.startswith("I")
    assert decode(tmp_path / "a.png", 1)[0].tolist() == [[0, 1, 255, 156, 0]]
    assert decode(tmp_path / "a.png", 3).shape == (3, 1, 5)
    assert read_header(tmp_path / "a.png").grey


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    got = decode(tmp_path / "a.jpg").astype(int)
    assert np.abs(got - np.array([255, 0, 0])[:, None, None]).max() < 8
    assert not read_header(tmp_path / "a.jpg").grey


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation(tmp_path, suffix):
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[:, :8] = 255  # white at the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter: the left comes to the top
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif, quality=100)
    header = read_header(tmp_path / f"a.{suffix}")
    assert (header.width, header.height) == (8, 24)
    got = decode(tmp_path / f"a.{suffix}")
    assert got[:, :7].min() > 240 and got[:, 9:].max() < 15


def test_gif_gives_its_first_frame(tmp_path):
    frames = [Image.new("L", (3, 3), v) for v in (40, 90)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert set(decode(tmp_path / "a.gif", 1).ravel().tolist()) == {40}


def test_channels_follow_all_the_images(tmp_path):
    fill(tmp_path / "x", 4, channels=1)
    assert load_folder(tmp_path).spec == DataSpec((1, 6, 6), 256)
    picture(9).save(tmp_path / "x" / "colour.png")
    data = load_folder(tmp_path)
    assert data.spec == DataSpec((3, 6, 6), 256)
    grey = next(x for x, p in zip(data.train.images, data.train.paths, strict=True) if p.name != "colour.png")
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])


# --- sizes --------------------------------------------------------------------------------------------------


def test_image_size_takes_the_middle_and_antialiases(tmp_path):
    stripes = np.zeros((40, 120), dtype=np.uint8)
    stripes[:, 40:80:2] = 255  # the middle square is finely striped: its mean is 127.5
    stripes[:, :40], stripes[:, 80:] = 255, 255
    for name in "abc":
        Image.fromarray(stripes).save(tmp_path / f"{name}.png")
    data = load_folder(tmp_path, image_size=5)
    assert data.spec.shape == (1, 5, 5)
    assert (data.train.images.float() - 127.5).abs().max() < 20  # neither the sides nor aliased stripes
    assert "5x5" in data.protocol["resize"] and load_folder(tmp_path).protocol["resize"] == "none"
    assert load_folder(tmp_path, image_size=80).spec.shape == (1, 80, 80)  # small images are enlarged


def test_mixed_sizes_name_two_files(tmp_path):
    fill(tmp_path, 3)
    picture(size=(7, 5)).save(tmp_path / "odd.png")
    said = message(tmp_path)
    assert "000.png is 6x6" in said and "odd.png is 7x5" in said and "--image-size" in said
    assert len(load_folder(tmp_path, image_size=4).train) == 2
    assert "at least 1" in message(tmp_path, image_size=0)


# --- splits and classes -------------------------------------------------------------------------------------


def test_classes_and_fixed_splits(tmp_path):
    for i, name in enumerate(["zebra", "ant", "größe x"]):
        fill(tmp_path / name / "deeper", 20, start=20 * i)
    data, again = load_folder(tmp_path, cond="class"), load_folder(tmp_path)
    assert data.protocol["classes"] == ["ant", "größe x", "zebra"]
    assert data.spec.cond_size == 3 and again.spec.cond is None
    assert [len(s) for s in (data.train, data.val, data.test)] == [48, 6, 6]
    parts = [data.train, data.val, data.test]
    assert len({p for s in parts for p in s.paths}) == 60
    for split, twin in zip(parts, (again.train, again.val, again.test), strict=True):
        assert split.paths == twin.paths and torch.equal(split.images, twin.images)
        for path, label, image in zip(split.paths, split.labels, split.images, strict=True):
            assert path.relative_to(tmp_path).parts[0] == data.protocol["classes"][label]
            np.testing.assert_array_equal(image, np.asarray(picture(int(path.stem))).transpose(2, 0, 1))
    validate(data.train, data.spec)


def test_split_folders_are_the_splits(tmp_path):
    for j, split in enumerate(["train", "val", "test"]):
        for i, name in enumerate(["cat", "dog"]):
            fill(tmp_path / split / name, 3 + j, start=100 * j + 10 * i)
    data = load_folder(tmp_path, cond="class")
    assert [len(s) for s in (data.train, data.val, data.test)] == [6, 8, 10]
    for split, name in ((data.train, "train"), (data.val, "val"), (data.test, "test")):
        assert {p.relative_to(tmp_path).parts[0] for p in split.paths} == {name}
        assert split.labels.tolist() == [int(p.parent.name == "dog") for p in split.paths]


def test_a_missing_val_folder_is_cut_off_train(tmp_path):
    fill(tmp_path / "train", 20)
    fill(tmp_path / "test", 5, start=50)
    data = load_folder(tmp_path)
    assert [len(s) for s in (data.train, data.val, data.test)] == [18, 2, 5]
    assert data.train.labels is None
    assert {p.parent.name for p in (*data.train.paths, *data.val.paths)} == {"train"}


def test_half_named_splits_are_refused(tmp_path):
    fill(tmp_path / "train", 4)
    fill(tmp_path / "validation", 4, start=9)
    fill(tmp_path / "extra", 2, start=20)
    assert "train and validation look like splits" in message(tmp_path)
    (tmp_path / "validation").rename(tmp_path / "test")
    assert "'extra' lies beside them" in message(tmp_path)
    (tmp_path / "train").rename(tmp_path / "val")
    for file in (tmp_path / "extra").iterdir():
        file.unlink()
    assert "no images in train, only in test, val" in message(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path / "train", 3)
    fill(tmp_path / "plane", 3, start=5)
    assert load_folder(tmp_path).protocol["classes"] == ["plane", "train"]


def test_loose_images_leave_no_labels(tmp_path):
    fill(tmp_path / "a", 3)
    fill(tmp_path, 2, start=7)
    data = load_folder(tmp_path)
    assert data.train.labels is None and data.protocol["classes"] == []
    said = message(tmp_path, cond="class")
    assert "007.png lies outside of any class folder" in said


def test_three_images_are_enough_and_two_are_not(tmp_path):
    data = load_folder(fill(tmp_path, 3))
    assert [len(s) for s in (data.train, data.val, data.test)] == [1, 1, 1]
    (tmp_path / "000.png").unlink()
    assert "at least 3 are needed" in message(tmp_path)


def test_test_id_tells_test_sets_apart(tmp_path):
    first = load_folder(fill(tmp_path / "a" / "pics", 10)).protocol["test_id"]
    other = load_folder(fill(tmp_path / "b" / "pics", 11)).protocol["test_id"]
    small = load_folder(tmp_path / "a" / "pics", image_size=3).protocol["test_id"]
    assert first.startswith("folder/test@images=") and len({first, other, small}) == 3
    assert str(tmp_path) not in first


# --- streaming ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_size", [None, 4])
def test_streaming_equals_memory(tmp_path, image_size):
    for i, name in enumerate("ab"):
        fill(tmp_path / name, 15, start=50 * i)
    options = {"image_size": image_size, "cond": "class"}
    held, streamed = load_folder(tmp_path, **options), load_folder(tmp_path, **options, memory_limit_bytes=0)
    assert held.spec == streamed.spec and held.protocol == streamed.protocol
    for a, b in ((held.train, streamed.train), (held.val, streamed.val), (held.test, streamed.test)):
        assert isinstance(a.images, torch.Tensor) and isinstance(b.images, LazyImages)
        assert a.images.shape == b.images.shape and torch.equal(a.images, b.images[:])
        index = torch.tensor([0, len(a) - 1, 0])
        for x, y in zip(a.batch(index), b.batch(index), strict=True):
            assert torch.equal(x, y)
        assert torch.equal(a.images[a.labels == 1], b.images[b.labels == 1])
    validate(streamed.train, streamed.spec)
    shown = torch.cat([x for x, _ in DataLoader(streamed.train, batch_size=7)])
    assert torch.equal(shown, held.train.images)
    assert torch.equal(pickle.loads(pickle.dumps(streamed.val.images))[:], held.val.images)


def test_streaming_decodes_on_demand(tmp_path):
    data = load_folder(fill(tmp_path, 12), memory_limit_bytes=0)
    victim = data.train.paths[4]
    truncate(victim)
    assert data.train.batch(torch.tensor([0, 1, 2, 3])).images.shape == (4, 3, 6, 6)
    with pytest.raises(GenzooError, match=victim.name):
        data.train.batch(torch.tensor([3, 4]))


# --- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp"])
def test_truncated_images(tmp_path, suffix):
    for i in range(5):
        picture(i, size=(40, 40)).save(tmp_path / f"{i}.{suffix}")
    bad = truncate(tmp_path / f"2.{suffix}")
    said = message(tmp_path)
    assert str(bad) in said and "--skip-bad-images" in said
    for limit in (0, 2**30):
        data = load_folder(tmp_path, skip_bad_images=True, memory_limit_bytes=limit)
        assert data.protocol["skipped_bad_images"] == 1
        assert sum(data.protocol["sizes"].values()) == 4
        assert bad not in {*data.train.paths, *data.val.paths, *data.test.paths}
        assert data.train.images[:].shape == (2, 3, 40, 40)


@pytest.mark.parametrize(
    "content", [b"", b"this is text", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"\xff\xd8\xff\xe0"]
)
def test_files_that_are_no_images(tmp_path, content):
    fill(tmp_path, 4)
    (tmp_path / "fake.png").write_bytes(content)
    assert "fake.png" in message(tmp_path)
    assert load_folder(tmp_path, skip_bad_images=True).protocol["skipped_bad_images"] == 1


def test_other_formats_in_disguise_are_not_opened(tmp_path):
    fill(tmp_path, 4)
    picture().save(tmp_path / "a.tiff")
    (tmp_path / "a.tiff").rename(tmp_path / "a.png")
    assert "a.png (not an image, or damaged)" in message(tmp_path)


def test_nothing_but_bad_images(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"no")
    assert "none of the 3 images" in message(tmp_path, skip_bad_images=True)


def test_folders_without_images(tmp_path):
    assert f"there is no folder {tmp_path / 'nowhere'}" in message(tmp_path / "nowhere")
    assert "is empty" in message(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    assert "holds no images" in message(tmp_path)
    assert "is a file, not a folder" in message(tmp_path / "notes.txt")


def test_hidden_files_other_kinds_and_loops_are_passed_over(tmp_path):
    fill(tmp_path / "my images é", 4)
    fill(tmp_path / ".cache", 2)
    (tmp_path / "my images é" / "._000.png").write_bytes(b"resource fork")
    (tmp_path / "readme.md").write_text("hello")
    picture(7).save(tmp_path / "my images é" / "LOUD.PNG")
    (tmp_path / "my images é" / "loop").symlink_to(tmp_path)
    data = load_data(f"folder:{tmp_path}")
    assert sum(data.protocol["sizes"].values()) == 5
    assert data.protocol["name"] == f"folder:{tmp_path}"


def test_load_data_passes_the_options_on(tmp_path):
    fill(tmp_path / "a", 4, size=(9, 6))
    truncate(next((tmp_path / "a").iterdir()))
    data = load_data(f"folder:{tmp_path}", image_size=5, cond="class", skip_bad_images=True)
    assert data.spec == DataSpec((3, 5, 5), 256, "class", 1)
    assert data.protocol["skipped_bad_images"] == 1


# --- CIFAR-10 as JPEG ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not TARS.is_dir(), reason="no cifar10-jpeg under $GENZOO_DATA")
def test_cifar_jpeg_tars(tmp_path):
    with tarfile.open(TARS / "test.tar") as tar:
        members = [m for m in tar if m.isfile()][::40]
        for member in members:
            file = tmp_path / member.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(tar.extractfile(member).read())
    data = load_data(f"folder:{tmp_path / 'test'}", cond="class")
    assert data.spec == DataSpec((3, 32, 32), 256, "class", 10)
    assert sum(data.protocol["sizes"].values()) == len(members) == 250
    assert data.protocol["classes"][0] == "airplane" and data.protocol["classes"][-1] == "truck"
    path, image = data.test.paths[3], data.test.images[3]
    np.testing.assert_array_equal(image, np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1))
