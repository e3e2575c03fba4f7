"""Pictures that cameras and programs make: metadata of any kind, depths that are not their file's, damage."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec
from genzoo.data import load_folder
from genzoo.data.orientation import exif_orientation
from genzoo.data.pictures import BadImage, ImageReader, read_header, read_picture

ROTATED = 6


def tag(number, kind, count, value):
    return struct.pack("<HHI", number, kind, count) + value.ljust(4, b"\0")[:4]


def exif(*tags, order=b"II*\0"):
    body = order + struct.pack("<IH", 8, len(tags)) + b"".join(sorted(tags)) + struct.pack("<I", 0)
    return b"Exif\0\0" + body


ORIENTED = tag(0x112, 3, 1, bytes([ROTATED]))
ODD = {
    "XResolution as text": tag(0x11A, 2, 3, b"72\0"),
    "XResolution as one letter": tag(0x11A, 2, 1, b"7"),
    "XResolution of zeros": tag(0x11A, 5, 1, b"\xff\xff\0\0"),
    "ImageWidth as text": tag(0x100, 2, 3, b"24\0"),
    "a pointer to nowhere": tag(0x8769, 4, 1, b"\xff\xff\xff\x7f"),
    "a pointer to itself": tag(0x8769, 4, 1, struct.pack("<I", 8)),
    "an unknown type": tag(0x10F, 99, 4, b"abcd"),
    "more values than bytes": tag(0x10F, 2, 2**31, b"abcd"),
}


def saved(path, block, size=(8, 24)):
    """White at the left of a picture that is to be turned."""
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    pixels[:, :8] = 255
    Image.fromarray(pixels).save(path, exif=block, quality=100)
    return path


def pixels_of(path):
    header = read_header(path)
    return ImageReader((path,), (3, header.height, header.width), False).decode(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("name", ODD)
def test_odd_metadata_costs_nothing(tmp_path, suffix, name):
    path = saved(tmp_path / f"a.{suffix}", exif(ODD[name], ORIENTED))
    header = read_header(path)
    assert (header.width, header.height) == (8, 24)  # turned upright all the same
    got = pixels_of(path)
    assert got[:, :7].min() > 240 and got[:, 9:].max() < 15


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_no_mutation_of_metadata_fails(tmp_path, suffix):
    """In former versions about one in seventy ended in a traceback."""
    random = np.random.default_rng(0)
    block = exif(ORIENTED, *ODD.values(), tag(0x128, 3, 1, b"\2"))
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 4), dtype=np.uint8)).convert("RGB").save(
        buffer, format={"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[suffix], exif=block
    )
    whole = buffer.getvalue()
    start = whole.index(block[6:])  # behind "Exif", which not every format keeps
    path = tmp_path / f"a.{suffix}"
    for _ in range(350):
        mutated = bytearray(whole)
        for place in random.integers(0, len(block) - 6, random.integers(1, 9)):
            mutated[start + place] = random.integers(0, 256)
        if suffix == "png":
            _mend_checksum(mutated, start)
        path.write_bytes(mutated)
        header = read_header(path)
        assert {header.width, header.height} == {2, 4}
        assert pixels_of(path).max() == 0


def _mend_checksum(png, start):
    """Of the chunk whose content begins about `start`."""
    begin = png.rindex(b"eXIf", 0, start + 1)
    length = int.from_bytes(png[begin - 4 : begin], "big")
    png[begin + 4 + length : begin + 8 + length] = struct.pack(
        ">I", zlib.crc32(png[begin : begin + 4 + length])
    )


def test_a_thousand_mutations_of_a_block_say_an_orientation_or_nothing():
    random = np.random.default_rng(1)
    block = exif(ORIENTED, *ODD.values())
    assert exif_orientation(block) == ROTATED
    for _ in range(1000):
        mutated = bytearray(block[: random.integers(0, len(block) + 1)])
        for place in random.integers(0, max(1, len(mutated)), random.integers(0, 9)) if mutated else ():
            mutated[place] = random.integers(0, 256)
        assert exif_orientation(bytes(mutated)) in (None, *range(1, 9))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_orientation_is_turned_as_pillow_turns_it(tmp_path, orientation, order):
    from PIL import ImageOps

    body = {"<": b"II*\0", ">": b"MM\0*"}[order]
    block = b"Exif\0\0" + body + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=block)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png").transpose(1, 2, 0), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16", "1", "CMYK"])
def test_tiff_of_every_mode(tmp_path, mode):
    image = Image.fromarray(np.arange(0, 240, 40, dtype=np.uint8).reshape(2, 3))
    image = (
        Image.fromarray(np.asarray(image).astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    )
    image.save(tmp_path / "a.tif")
    exif_block = Image.Exif()
    exif_block[0x112] = ROTATED
    image.save(tmp_path / "b.tif", exif=exif_block)
    plain, turned = pixels_of(tmp_path / "a.tif"), pixels_of(tmp_path / "b.tif")
    np.testing.assert_array_equal(np.rot90(plain, -1, (1, 2)), turned)
    if mode in ("L", "RGB", "P", "I;16"):
        assert plain[0].ravel().tolist() == list(range(0, 240, 40))


# --- depth -----------------------------------------------------------------------------------------------------


def deep(folder, largest, n=12):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        values = np.linspace(0, largest, 64).round().astype(np.uint16).reshape(8, 8)
        Image.fromarray(np.roll(values, i)).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize(("bits", "told"), [(8, True), (10, True), (12, True), (14, True), (16, False)])
def test_pictures_keep_all_their_levels(tmp_path, bits, told):
    """12 bits in files of 16 were trained on as 17 levels."""
    data = load_folder(deep(tmp_path, 2**bits - 1))
    assert data.train.images.max() == 255 and len(data.train.images.unique()) == 64
    assert any(f"use {bits}" in line for line in data.remarks) == told
    assert data.protocol.get("white", 65535) == 2**bits - 1
    former = load_folder(tmp_path, rules=1)
    assert former.train.images.max() == round(255 * (2**bits - 1) / 65535)
    single = read_picture(data.train.paths[0], DataSpec((1, 8, 8), 256), data.protocol.get("white", 65535))
    assert torch.equal(single, data.train.images[0])


def png_of_colour(path, values):
    """A PNG with 16 bits for each colour, which Pillow does not write."""
    h, w, _ = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def test_colour_of_which_few_levels_would_be_left_is_refused(tmp_path):
    values = np.linspace(0, 4095, 48).astype(np.uint16).reshape(4, 4, 3)
    for i in range(4):
        png_of_colour(tmp_path / f"{i}.png", np.roll(values, i))
    with pytest.raises(GenzooError, match="use 12, of which 16 levels would be left"):
        load_folder(tmp_path)
    for i in range(4):
        png_of_colour(tmp_path / f"{i}.png", np.roll(values, i) * 16)
    assert load_folder(tmp_path).spec.shape == (3, 4, 4)


def test_floats_are_refused(tmp_path):
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).random((4, 4), dtype=np.float32)).save(tmp_path / f"{i}.tif")
    with pytest.raises(BadImage, match="floats"):
        load_folder(tmp_path)


# --- damage ----------------------------------------------------------------------------------------------------


def test_nothing_but_truncated_pictures_is_one_line(tmp_path):
    for i in range(5):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 40), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(GenzooError, match="none of the 5 images") as error:
        load_folder(tmp_path, skip_bad_images=True)
    assert "\n" not in str(error.value)


def test_what_was_left_out_is_told(tmp_path):
    for i in range(20):
        Image.fromarray(np.full((3, 3), i, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "7.png").write_bytes(b"\x89PNG")
    data = load_folder(tmp_path, skip_bad_images=True)
    assert any("left out 1 of 20 images, which cannot be read: 7.png" in line for line in data.remarks)
