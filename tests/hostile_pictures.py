"""Pictures that a decoder should not meet, and things that are no files: for tests of whatever opens pictures."""

import io
import os
import socket
import struct
import zlib

from PIL import Image

NO_FILES = ("a-folder", "a-pipe", "to-a-pipe", "to-a-device", "to-nothing", "to-itself", "a-socket")
"""What `not_files` puts into a folder, by name."""


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width, height):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def png(width=4, height=4, *, remarks=(), after=(), claimed=None):
    """A grey picture; `remarks` are chunks before its pixels, `after` behind them, `claimed` the size it states."""
    rows = zlib.compress(bytes((width + 1) * height))
    parts = [
        header(*(claimed or (width, height))),
        *remarks,
        chunk(b"IDAT", rows),
        *after,
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bomb(size=2**25):
    return zlib.compress(bytes(size))


def saved(format):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format=format)
    return buffer.getvalue()


BAD = {
    "empty": b"",
    "text": b"no picture",
    "signature": png()[:8],
    "cut": png()[:43],
    "huge": png(claimed=(30_000, 30_000)),
    "endless": png(claimed=(2**31 - 1, 2**31 - 1)),
    "nothing": png(claimed=(0, 4)),
    "short": png(claimed=(400, 400)),
    "pieces": b"\x89PNG\r\n\x1a\n" + header(4, 4) + chunk(b"IDAT", b"") * (2**17 + 1),
    "no-header": b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", zlib.compress(bytes(20))) + chunk(b"IEND", b""),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/hostile) (w) file closefile\nshowpage\n",
    **{f"a-{format}": saved(format) for format in ("JPEG", "GIF", "TIFF", "PDF", "ICO", "PPM")},
}
"""Files that are no picture in PNG."""

SOUND = {
    "plain": png(),
    "text-bomb": png(remarks=[chunk(b"zTXt", b"a\0\0" + bomb())]),
    "unicode-bomb": png(remarks=[chunk(b"iTXt", b"a\0\1\0\0\0" + bomb())]),
    "profile-bomb": png(remarks=[chunk(b"iCCP", b"a\0\0" + bomb())]),
    "late-bomb": png(after=[chunk(b"zTXt", b"a\0\0" + bomb())]),
    "damaged-remark": png(remarks=[chunk(b"tEXt", b"a\0b")[:-1] + b"?"]),
    "odd-exif": png(remarks=[chunk(b"eXIf", b"MM\0*" + b"\xff" * 40)]),
    "large-exif": png(remarks=[chunk(b"eXIf", bytes(2**21))]),
}
"""PNG files whose pixels are in order, whatever is around them."""


def not_files(folder):
    """Things in `folder` that are no regular files, by name."""
    (folder / "a-folder").mkdir()
    os.mkfifo(folder / "a-pipe")
    (folder / "to-a-pipe").symlink_to(folder / "a-pipe")
    (folder / "to-a-device").symlink_to("/dev/zero")
    (folder / "to-nothing").symlink_to(folder / "nothing")
    (folder / "to-itself").symlink_to(folder / "to-itself")
    listening = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)  # the names of sockets must be short
    try:
        listening.bind("a-socket")
    finally:
        os.chdir(here)
        listening.close()
    return [folder / name for name in (*NO_FILES, "no-such-file")]
