"""Whatever lies where a picture is looked for: it opens as one, or one line says why not; nothing hangs or runs."""

import os
import shutil
import warnings

import hostile_pictures
import numpy as np
import pytest
from PIL import Image

from genzoo.core.errors import GenzooError
from genzoo.core.picture_files import BadPicture, open_picture
from genzoo.core.regular_files import (
    UnreadableFile,
    is_regular,
    is_within,
    open_regular,
    read_regular,
    sha256_of,
)


def decoded(path, *formats, **limits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_picture(path, formats or ("PNG",), **limits) as picture:
            return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("name", hostile_pictures.SOUND)
def test_what_is_not_pixels_does_no_harm(tmp_path, name):
    path = tmp_path / "x.png"
    path.write_bytes(hostile_pictures.SOUND[name])
    assert decoded(path).shape == (4, 4, 3)


@pytest.mark.parametrize("name", hostile_pictures.BAD)
def test_a_bad_picture_is_one_line(tmp_path, name):
    path = tmp_path / "x.png"
    path.write_bytes(hostile_pictures.BAD[name])
    with pytest.raises(BadPicture, match=r"x\.png") as caught:
        decoded(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_what_is_no_file_is_not_opened(tmp_path):
    for path in hostile_pictures.not_files(tmp_path):
        assert not is_regular(path)
        for read in (decoded, read_regular):
            with pytest.raises(UnreadableFile, match="cannot be read: "):
                read(path)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_what_is_no_name_names_no_file(tmp_path, name):
    assert not is_regular(tmp_path / name)
    with pytest.raises(UnreadableFile):
        read_regular(tmp_path / name)


def test_a_file_that_claims_to_be_endless_is_not_hashed(tmp_path):
    (tmp_path / "weights").touch()
    os.truncate(tmp_path / "weights", 2**40)
    with pytest.raises(UnreadableFile, match="at most"):
        sha256_of(tmp_path / "weights")


def test_limits(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(hostile_pictures.png(8, 8))
    assert decoded(path, most_pixels=64, most_bytes=path.stat().st_size).shape == (8, 8, 3)
    with pytest.raises(BadPicture, match="8x8 pixels, at most 63 are read"):
        decoded(path, most_pixels=63)
    with pytest.raises(UnreadableFile, match="MiB"):
        decoded(path, most_bytes=40)
    with pytest.raises(UnreadableFile, match="MiB"):
        read_regular(path, 40)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats_that_are_asked_for(tmp_path, name):
    path = tmp_path / "x"
    pixels = np.arange(48 * 3, dtype=np.uint8).reshape(6, 8, 3)
    Image.fromarray(pixels).save(path, format=name, **({"lossless": True} if name == "WEBP" else {}))
    everything = ("GIF", "JPEG", "BMP", "TIFF", "WEBP", "PNG")
    shown = decoded(path, *everything)
    assert shown.shape == (6, 8, 3) and np.abs(shown.astype(int) - pixels).max() <= (
        60 if name == "JPEG" else 0
    )
    with pytest.raises(BadPicture, match="it is no"):
        decoded(path, *(other for other in everything if other != name))


def test_a_png_of_many_pieces_is_what_it_was(tmp_path):
    pixels = np.random.default_rng(0).integers(
        256, size=(300, 400, 4), dtype=np.uint8
    )  # several chunks of pixels
    Image.fromarray(pixels).save(tmp_path / "x.png", icc_profile=b"none", dpi=(72, 72))
    with open_picture(tmp_path / "x.png") as picture:
        assert (np.asarray(picture) == pixels).all()


def test_the_callers_own_errors_pass(tmp_path):
    (tmp_path / "x.png").write_bytes(hostile_pictures.png())
    with pytest.raises(GenzooError, match="my own"), open_picture(tmp_path / "x.png"):
        raise GenzooError("my own")
    with pytest.raises(KeyError), open_regular(tmp_path / "x.png"):
        raise KeyError("my own")


def test_within(tmp_path):
    inside, outside = tmp_path / "run", tmp_path / "other"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "x").touch()
    (inside / "near").symlink_to("x")
    (inside / "far").symlink_to(outside / "x")
    (inside / "ring").symlink_to("ring")
    (tmp_path / "alias").symlink_to(inside)
    assert is_within(inside / "near", inside) and is_within(tmp_path / "alias" / "x", inside)
    assert is_within(inside / "x", tmp_path / "alias")
    assert not is_within(inside / "far", inside) and not is_within(inside / ".." / "other" / "x", inside)
    assert not is_within(inside / "ring" / "x", inside) or not is_regular(inside / "ring" / "x")
    shutil.rmtree(outside)
    assert not is_within(inside / "far", inside)
