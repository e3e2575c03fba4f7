"""Image files of any kind to uint8 tensors, decoded when asked for.

PNG, JPEG, WebP, BMP, PPM, the first picture of GIF and TIFF, and AVIF where Pillow has it, of any mode but floats.
Only the header is read to learn a file's size and whether it is grey; pixels are decoded by a small pool of threads.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.picture_files import BadPicture, open_picture
from genzoo.core.regular_files import UnreadableFile
from genzoo.core.showable import showable
from genzoo.core.spec import DataSpec
from genzoo.data.orientation import TURNED, orientation_of, upright

if TYPE_CHECKING:
    from PIL import Image

FORMER_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})
"""File names (in lower case) that count as images in every version of genzoo."""

WHITE = 65535
"""What is white in 16-bit pictures, unless all of a folder's have fewer bits."""

MOST_PIXELS = 2**27
"""Of a picture, width times height: more than any camera's."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_MORE = {
    ".apng": "PNG", ".jfif": "JPEG", ".jpe": "JPEG", ".dib": "DIB", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM",
    ".pgm": "PPM", ".pbm": "PPM", ".pnm": "PPM", ".avif": "AVIF",
}  # fmt: skip
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"})
_SIXTEEN_BIT = frozenset({"I", "I;16", "I;16B", "I;16L"})
_FEWEST_BITS = 6  # that must be left of colour pictures with 16, of which the upper eight are read
_POOL = 4
_STRIDE = 1024  # files handed to the pool at a time: an error does not wait for a whole large folder

Item = TypeVar("Item")
Result = TypeVar("Result")


class BadImage(GenzooError):
    """A file that cannot be decoded; the message names it and `--skip-bad-images`."""


class Header(NamedTuple):
    """What a file says of itself: width and height in pixels once turned upright, and whether it is grey.

    `deep` pictures have 16 bits, of `cut` ones Pillow hands out the upper eight alone (in colour or with transparency).
    """

    width: int
    height: int
    grey: bool
    deep: bool = False
    cut: bool = False


@final
@dataclass(frozen=True)
class ImageReader:
    """Decodes `files` to uint8 `[c, h, w]`, c = 1 or 3; with `resize` to the middle square, h x w.

    `white` is the value of 16-bit pictures that becomes 255.
    """

    files: tuple[Path, ...]
    shape: tuple[int, int, int]
    resize: bool
    white: int = WHITE

    def read(self, indices: Tensor) -> Tensor:
        """Files number `indices` `[m]`, decoded: uint8 `[m, c, h, w]`. Raises `BadImage`."""
        images = torch.empty((len(indices), *self.shape), dtype=torch.uint8)
        target = images.numpy()

        def fill(place: tuple[int, int]) -> None:
            target[place[0]] = self.decode(self.files[place[1]])

        parallel(fill, list(enumerate(indices.tolist())))
        return images

    def decode(self, file: Path) -> np.ndarray:
        """One file as uint8 `[c, h, w]`. Raises `BadImage` where it is damaged or of another size."""
        from PIL import Image, ImageOps

        channels, height, width = self.shape
        with _opened(file) as image:
            flat = _flat(upright(image), "L" if channels == 1 else "RGB", self.white)
            if self.resize:
                flat = ImageOps.fit(flat, (width, height), method=Image.Resampling.BICUBIC)
        if flat.size != (width, height):
            found = f"it is {flat.width}x{flat.height} and not {width}x{height}"
            raise BadImage(
                f"cannot use image {showable(file)}: {found}; pass --image-size, or --skip-bad-images"
            )
        pixels = np.asarray(flat)
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def suffixes() -> frozenset[str]:
    """File names (in lower case) that count as images: what Pillow reads here without starting another program."""
    return FORMER_SUFFIXES | {suffix for suffix in _MORE if suffix != ".avif" or _has_avif()}


def read_picture(file: Path, spec: DataSpec, white: int = WHITE) -> Tensor:
    """One file as an image of `spec`, uint8 `[c, h, w]` in its levels, cropped and resized. Raises `BadImage`."""
    channels, height, width = spec.shape
    reader = ImageReader((Path(file),), (channels, height, width), resize=True, white=white)
    levels = spec.levels or 256
    pixels = reader.decode(Path(file)).astype(np.float64)
    return torch.from_numpy(pixels * ((levels - 1) / 255)).round().to(torch.uint8)


def read_header(file: Path) -> Header:
    """The header of one file, without decoding its pixels. Raises `BadImage`."""
    with _opened(file) as image:
        width, height = image.size
        grey = image.mode in _GREY_MODES or (image.mode in ("P", "PA") and _grey_palette(image))
        if orientation_of(image) in TURNED:
            width, height = height, width
        return Header(width, height, grey, image.mode in _SIXTEEN_BIT, _is_cut(image))


def read_maximum(file: Path) -> int:
    """The largest value of a picture as Pillow hands it out. Raises `BadImage`."""
    with _opened(file) as image:
        return int(np.asarray(image).max())


def white_of(files: Sequence[Path], headers: Sequence[Header]) -> tuple[int, list[str]]:
    """The largest value that 16-bit pictures can have, and a remark where it is less than what 16 bits can hold.

    Cameras with 12 bits write files of 16. Raises `GenzooError` for colour pictures of which too few levels would be
    left, and `BadImage`.
    """
    pairs = list(zip(files, headers, strict=True))
    cut = [path for path, header in pairs if header.cut]
    if cut and (largest := max(parallel(read_maximum, cut))) < 2**_FEWEST_BITS:
        raise GenzooError(
            f"pictures such as {showable(cut[0].name)} have 16 bits in their files but use "
            f"{8 + largest.bit_length()}, of which {largest + 1} levels would be left: save them with 8 bits"
        )
    deep = [path for path, header in pairs if header.deep]
    if not deep:
        return WHITE, []
    largest = max(parallel(read_maximum, deep))
    bits = next((bits for bits in (8, 10, 12, 14) if largest < 2**bits), 16)
    if bits == 16:
        return WHITE, []
    return 2**bits - 1, [
        f"pictures with 16 bits in their files use {bits} (their largest value is {largest}): "
        f"{2**bits - 1} is taken for white"
    ]


def unless_bad(function: Callable[[Path], Result], files: Sequence[Path]) -> list[Result | None]:
    """`function` of each file, None where it raises `BadImage`."""

    def attempt(file: Path) -> Result | None:
        try:
            return function(file)
        except BadImage:
            return None

    return parallel(attempt, files)


def parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`[function(i) for i in items]` by a small pool of threads (Pillow decodes outside the interpreter lock)."""
    from PIL import Image

    Image.init()  # registers the formats once, before threads could race for it
    if len(items) <= _POOL:
        return [function(item) for item in items]
    results: list[Result] = []
    with ThreadPoolExecutor(_POOL) as pool:
        for start in range(0, len(items), _STRIDE):
            results.extend(pool.map(function, items[start : start + _STRIDE]))
    return results


@cache
def _has_avif() -> bool:
    from PIL import features

    return bool(features.check("avif"))


@contextmanager
def _opened(file: Path) -> "Iterator[Image.Image]":
    """The picture in a file, whose errors, of whatever kind, are `BadImage`."""
    more = _MORE.get(file.suffix.lower())
    formats = _FORMATS if more is None or more in _FORMATS else (*_FORMATS, more)
    try:
        with open_picture(file, formats, most_pixels=MOST_PIXELS) as image:
            yield image
    except (BadPicture, UnreadableFile) as error:
        raise _bad(file, error) from error


def _flat(image: "Image.Image", mode: str, white: int = WHITE) -> "Image.Image":
    """An upright image in `mode` L or RGB: 16 bits scaled to 8, transparent parts laid on white."""
    from PIL import Image

    if image.mode in _SIXTEEN_BIT:
        deep = np.asarray(image).astype(np.float64).clip(0, white)
        return Image.fromarray((deep * (255 / white)).round().astype(np.uint8)).convert(mode)
    if image.mode == "F":
        raise ValueError("its values are floats, whose range nobody knows: save it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB").convert(mode) if image.mode in ("P", "CMYK") else image.convert(mode)


def _grey_palette(image: "Image.Image") -> bool:
    palette = image.palette
    if palette is None:
        return False
    colours = np.frombuffer(bytes(palette.palette), dtype=np.uint8)
    order = palette.rawmode or palette.mode
    planar = order.endswith(";L")  # all reds, then all greens; else the first three are R, G, B in some order
    colours = colours.reshape(len(palette.mode), -1).T if planar else colours.reshape(-1, len(order))
    return bool((colours[:, :1] == colours[:, :3]).all())


def _is_cut(image: "Image.Image") -> bool:
    """Whether a picture of more than one channel has 16 bits, of which Pillow hands out the upper eight."""
    return image.mode in ("RGB", "RGBA", "LA") and any("16" in str(tile[3]) for tile in image.tile)


def _bad(file: Path, error: BadPicture | UnreadableFile) -> BadImage:
    from PIL import UnidentifiedImageError

    reason = error.reason
    if isinstance(error.__cause__, UnidentifiedImageError):
        reason = "not an image, or damaged"
    return BadImage(
        f"cannot read image {showable(file)} ({showable(reason)}): mend or remove it, or pass --skip-bad-images"
    )
