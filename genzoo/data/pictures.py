"""Image files of any kind to uint8 tensors, decoded when asked for.

PNG, JPEG, WebP, BMP and the first frame of GIF, of any Pillow mode. Only the header is read to learn a
file's size and whether it is grey; pixels are decoded by a small pool of threads.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})
"""File names (in lower case) that count as images."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"})
_SIXTEEN_BIT = frozenset({"I", "I;16", "I;16B", "I;16L"})
_ROTATED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112
# All that Pillow's decoders are known to raise on damaged files; its size guard is added in `_open_errors`.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
_POOL = 4
_STRIDE = 1024  # files handed to the pool at a time: an error does not wait for a whole large folder

Item = TypeVar("Item")
Result = TypeVar("Result")


class BadImage(GenzooError):
    """A file that cannot be decoded; the message names it and `--skip-bad-images`."""


class Header(NamedTuple):
    """What a file says of itself: width and height in pixels once turned upright, and whether it is grey."""

    width: int
    height: int
    grey: bool


@final
@dataclass(frozen=True)
class ImageReader:
    """Decodes `files` to uint8 `[c, h, w]`, c = 1 or 3; with `resize` to the middle square, h x w."""

    files: tuple[Path, ...]
    shape: tuple[int, int, int]
    resize: bool

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
        try:
            with Image.open(file, formats=_FORMATS) as image:
                flat = _flat(ImageOps.exif_transpose(image), "L" if channels == 1 else "RGB")
            if self.resize:
                flat = ImageOps.fit(flat, (width, height), method=Image.Resampling.BICUBIC)
        except _open_errors() as error:
            raise _bad(file, error) from error
        if flat.size != (width, height):
            found = f"it is {flat.width}x{flat.height} and not {width}x{height}"
            raise BadImage(f"cannot use image {file}: {found}; pass --image-size, or --skip-bad-images")
        pixels = np.asarray(flat)
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def read_picture(file: Path, spec: DataSpec) -> Tensor:
    """One file as an image of `spec`, uint8 `[c, h, w]` in its levels, cropped and resized. Raises `BadImage`."""
    channels, height, width = spec.shape
    pixels = ImageReader((Path(file),), (channels, height, width), resize=True).decode(Path(file))
    levels = spec.levels or 256
    return torch.from_numpy(pixels.astype(np.float64) * ((levels - 1) / 255)).round().to(torch.uint8)


def read_header(file: Path) -> Header:
    """The header of one file, without decoding its pixels. Raises `BadImage`."""
    from PIL import Image

    try:
        with Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            # PNG keeps EXIF in `info` if it stands before the pixels; asking for it otherwise decodes them all.
            known = image.format != "PNG" or "exif" in image.info
            turned = known and image.getexif().get(_ORIENTATION) in _ROTATED
            grey = image.mode in _GREY_MODES or (image.mode in ("P", "PA") and _grey_palette(image))
    except _open_errors() as error:
        raise _bad(file, error) from error
    return Header(height, width, grey) if turned else Header(width, height, grey)


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


def image_files(folder: Path) -> Iterable[Path]:
    """Image files below `folder`, relative to it and in order; hidden ones and other kinds are passed over."""
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        if here.resolve() in seen:  # a link that leads back up
            continue
        seen.add(here.resolve())
        for entry in here.iterdir():
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                waiting.append(entry)
            elif entry.suffix.lower() in SUFFIXES:
                yield entry.relative_to(folder)


def _flat(image: "Image.Image", mode: str) -> "Image.Image":
    """An upright image in `mode` L or RGB: 16 bits scaled to 8, transparent parts laid on white."""
    from PIL import Image

    if image.mode in _SIXTEEN_BIT:
        deep = np.asarray(image).astype(np.float64).clip(0, 65535)
        return Image.fromarray((deep / 257).round().astype(np.uint8)).convert(mode)
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
    colours = colours.reshape(
        -1, len(palette.rawmode or palette.mode)
    )  # the first three are R, G, B in some order
    return bool((colours[:, :1] == colours[:, :3]).all())


def _open_errors() -> tuple[type[Exception], ...]:
    from PIL import Image

    return (*_DECODE_ERRORS, Image.DecompressionBombError)


def _bad(file: Path, error: Exception) -> BadImage:
    from PIL import UnidentifiedImageError

    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = "not an image, or damaged"
    return BadImage(f"cannot read image {file} ({reason}): mend or remove it, or pass --skip-bad-images")
