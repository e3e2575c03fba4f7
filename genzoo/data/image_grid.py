"""PNG files of a run: grids of samples, and the loss curve."""

import io
import math
from pathlib import Path

import torch
from torch import Tensor

from genzoo.core.files import MADE_BY, write_product
from genzoo.core.spec import DataSpec
from genzoo.data.class_rows import ClassRows, name_strip, strip_width

TILE = 64  # small images are enlarged to about this many pixels


def image_grid(
    images: Tensor, levels: int, columns: int | None = None, class_rows: ClassRows | None = None
) -> Tensor:
    """Integer images `[n, c, h, w]` in 0..levels-1 to one RGB picture, uint8 `[height, width, 3]`.

    Pixels are enlarged by a whole factor, tiles are one grey pixel apart. Images of two channels or more
    than three show their first channel. With `class_rows` they stand in its rows, whose names are written beside them.
    """
    n, c, h, w = images.shape
    columns = class_rows.columns if class_rows else columns or math.ceil(math.sqrt(n))
    places = class_rows.places.tolist() if class_rows else list(range(n))
    rows = math.ceil((max(places, default=-1) + 1) / columns)
    factor = max(1, math.ceil(TILE / max(h, w)))
    scaled = (images.cpu().double() * (255 / (levels - 1))).round().to(torch.uint8)
    scaled = scaled if c == 3 else scaled[:, :1].expand(n, 3, h, w)
    scaled = scaled.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    th, tw = h * factor + 1, w * factor + 1
    grid = torch.full((3, rows * th + 1, columns * tw + 1), 128, dtype=torch.uint8)
    for i, tile in zip(places, scaled, strict=True):
        y, x = (i // columns) * th + 1, (i % columns) * tw + 1
        grid[:, y : y + th - 1, x : x + tw - 1] = tile
    picture = grid.permute(1, 2, 0).contiguous()
    if class_rows is None:
        return picture
    names = name_strip(class_rows.names, rows, th, strip_width(tw))
    return torch.cat([torch.from_numpy(names), picture], 1)


def save_grid(
    images: Tensor,
    spec: DataSpec,
    path: str | Path,
    columns: int | None = None,
    class_rows: ClassRows | None = None,
    *,
    inside: Path | None = None,
) -> None:
    """Writes `image_grid` of integer images `[n, c, h, w]` as PNG; does nothing for real-valued data.

    `inside` is as in `write_product`. Raises `GenzooError` where the file cannot be written, or is somebody else's.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if spec.levels is None:
        return
    buffer, about = io.BytesIO(), PngInfo()
    about.add_text("Software", MADE_BY)
    picture = Image.fromarray(image_grid(images, spec.levels, columns, class_rows).numpy())
    picture.save(buffer, format="PNG", pnginfo=about)
    write_product(path, buffer.getvalue(), inside=inside)


def save_triples(triples: Tensor, spec: DataSpec, path: str | Path, *, inside: Path | None = None) -> None:
    """Writes input, prediction and truth of integer images `[n, 3, c, h, w]` as PNG, four threes in a row."""
    save_grid(triples.flatten(0, 1), spec, path, columns=3 * min(4, len(triples)), inside=inside)
