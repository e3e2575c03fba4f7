"""Pictures that others may have made, opened: by no decoder but those asked for, sizes checked before any decoding.

Pillow has some forty decoders, among them one that starts Ghostscript, and a small file may claim to hold gigabytes of
pixels or of remarks. Whatever picture the package reads from disk it opens here.
"""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from genzoo.core.errors import GenzooError
from genzoo.core.regular_files import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.JpegImagePlugin import JpegImageFile

OWN = ("PNG",)
"""The format that the package itself writes."""

MOST_PIXELS = 2**26
"""Width times height: 67 million, more than most cameras have."""

MOST_BYTES = 2**28
"""Of a picture's file: 256 MiB."""

_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT"})
_MOST_CHUNKS = 2**17  # encoders write 8 KiB and more into each
_MOST_EXIF = 2**20
_END = b"\0\0\0\0IEND\xae\x42\x60\x82"


class BadPicture(GenzooError):
    """A file that is no picture of the formats asked for, or damaged, or too large; `reason` says which."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read as a picture: {reason}")
        self.reason = reason


@contextmanager
def open_picture(
    path: Path,
    formats: Sequence[str] = OWN,
    *,
    most_pixels: int = MOST_PIXELS,
    most_bytes: int = MOST_BYTES,
) -> Iterator["Image"]:
    """The picture in the regular file `path`, its pixels not decoded yet (`picture.load()`, `convert` ... decode them).

    `formats` are Pillow's names of those that are tried: "PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"; "JPEG" gives the
    first picture of a file with several. Remarks, profiles and further pictures of a PNG are passed over, whatever they
    hold; its EXIF is kept, for its orientation.

    Raises `BadPicture` where it has more than `most_pixels` pixels (width times height), which is known before anything
    is decoded, or is damaged, and `UnreadableFile` where it is no regular file of at most `most_bytes` bytes. Decode
    inside the `with` block: what a decoder raises there becomes `BadPicture` too.
    """
    with open_regular(path, most_bytes) as file:
        try:
            with _opened(file, formats) as picture:
                width, height = picture.size
                if width < 1 or height < 1 or width * height > most_pixels:
                    raise BadPicture(path, f"it has {width}x{height} pixels, at most {most_pixels} are read")
                yield picture
        except GenzooError:
            raise
        except Exception as error:  # decoders raise nearly anything on damaged files
            raise BadPicture(path, _reason(error)) from error


def _opened(file: BinaryIO, formats: Sequence[str]) -> "Image":
    """As Pillow's `open` does, without its warnings on sizes that are checked by the caller."""
    from PIL import Image, UnidentifiedImageError

    Image.init()
    prefix = file.read(16)
    file.seek(0)
    for name in formats:
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(prefix) is not True:  # a text says what is missing to read it
            continue
        if name == "PNG":
            return factory(_pixels_of_png(file), "")
        # Pillow's own choice between JPEG and its relative with several pictures fails on odd metadata
        return _jpeg()(file) if name == "JPEG" else factory(file, "")
    raise UnidentifiedImageError(f"it is no {' or '.join(formats)}")


@cache
def _jpeg() -> "type[JpegImageFile]":
    """Pillow's reader, which asks the metadata for a resolution otherwise, and fails where that is odd."""
    from PIL.JpegImagePlugin import JpegImageFile

    class PlainJpeg(JpegImageFile):
        def _read_dpi_from_exif(self) -> None:
            pass

    return PlainJpeg


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text or type(error).__name__


# --- PNG without what is not pixels ------------------------------------------------------------------------------


def _pixels_of_png(file: BinaryIO) -> BinaryIO:
    """`file` without the chunks that say nothing of its pixels: those may be damaged, or unfold to gigabytes.

    Ends after the last chunk of pixels. What is cut short stays cut short, which the decoder finds.
    """
    parts, place, size = [(0, 8)], 8, os.fstat(file.fileno()).st_size
    for _ in range(_MOST_CHUNKS):
        file.seek(place)
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IEND" or len(head) < 8:
            break
        if kind in _PIXEL_CHUNKS or (kind == b"eXIf" and length <= _MOST_EXIF):
            end = min(place + 12 + length, size)
            first = parts.pop()[0] if parts[-1][1] == place else place
            parts.append((first, end))
        place += 12 + length
    else:
        raise ValueError(f"it is in more than {_MOST_CHUNKS} pieces")
    return io.BufferedReader(_Parts(file, parts, _END if place <= size else b""))  # pyright: ignore


class _Parts(io.RawIOBase):
    """Parts `(start, end)` of a file, and `tail` behind them, as one file for reading."""

    def __init__(self, file: BinaryIO, parts: Sequence[tuple[int, int]], tail: bytes) -> None:
        self._file, self._parts, self._tail = file, parts, tail
        self._place = 0
        self._size = sum(end - start for start, end in parts) + len(tail)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As files do."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # pyright: ignore
        """Bytes from one part at a time; 0 at the end."""
        view, before = memoryview(buffer), 0
        for start, end in self._parts:
            inside = self._place - before
            if inside < end - start:
                self._file.seek(start + inside)
                return self._took(self._file.read(min(len(view), end - start - inside)), view)
            before += end - start
        inside = self._place - before
        return self._took(self._tail[inside : inside + len(view)], view)

    def _took(self, data: bytes, view: memoryview) -> int:
        view[: len(data)] = data
        self._place += len(data)
        return len(data)
