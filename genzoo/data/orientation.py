"""How a camera was held: the one thing of a picture's metadata that changes its pixels.

Nothing else of EXIF is read, and nothing is written back: a block may be damaged, or hold values of odd types, of a
picture whose pixels are sound. What cannot be read says "upright".
"""

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image

TURNED = frozenset({5, 6, 7, 8})
"""Orientations that swap width and height."""

_TAG, _BYTE, _SHORT, _LONG = 0x0112, 1, 3, 4
_WIDTHS = {_BYTE: 1, _SHORT: 2, _LONG: 4}
_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}
_IN_XMP = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")


def orientation_of(picture: "Image.Image") -> int:
    """1 to 8, as TIFF numbers them; 1 is upright. Of TIFF files 1, since Pillow turns them itself."""
    if picture.format == "TIFF":
        return 1
    block = picture.info.get("exif")
    found = exif_orientation(block) if isinstance(block, bytes) else None
    return found or _xmp_orientation(picture.info.get("xmp")) or 1


def upright(picture: "Image.Image") -> "Image.Image":
    """The picture as the photographer saw it."""
    from PIL import Image

    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation_of(picture))
    return picture if method is None else picture.transpose(method)


def exif_orientation(block: bytes) -> int | None:
    r"""What an EXIF block says; None where it says nothing, or nothing that can be read.

    >>> exif_orientation(b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0")
    6
    >>> exif_orientation(b"Exif\0\0MM")
    """
    body = block.removeprefix(b"Exif\0\0")
    order = _ORDERS.get(body[:2])
    if order is None:
        return None
    start = int.from_bytes(body[4:8], order)
    for i in range(int.from_bytes(body[start : start + 2], order)):
        entry = body[start + 2 + 12 * i : start + 14 + 12 * i]
        if len(entry) < 12:
            return None
        if int.from_bytes(entry[:2], order) == _TAG:
            width = _WIDTHS.get(int.from_bytes(entry[2:4], order), 0)
            value = int.from_bytes(entry[8 : 8 + width], order)
            return value if 1 <= value <= 8 else None
    return None


def _xmp_orientation(block: object) -> int | None:
    found = _IN_XMP.search(block) if isinstance(block, bytes) else None
    return None if found is None else int(found.group(1))
