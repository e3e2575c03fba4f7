"""Grids whose rows say which class they show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from genzoo.core.showable import showable

STRIP = 120
"""Pixels of width for names, about."""

_LETTER = 12  # pixels of height
_LONGEST_ROW = 16  # tiles of a class that stand in one row


@dataclass(frozen=True)
class ClassRows:
    """How images stand in a grid of `columns`: image i in tile `places[i]`; `names` say what rows begin with."""

    columns: int
    places: Tensor
    names: Mapping[int, str]


def class_rows(classes: Tensor, names: Sequence[str] = ()) -> ClassRows:
    """A row, or several, for each stretch of images of one class among `classes` long `[n]`.

    >>> class_rows(torch.tensor([4, 4, 7]), ["zero"] * 4 + ["four"]).names
    {0: 'four', 1: 'class 7'}
    """
    starts = [0, *(1 + (classes.diff() != 0).nonzero()[:, 0]).tolist(), len(classes)]
    lengths = [end - start for start, end in pairwise(starts)]
    longest = max(lengths)
    columns = longest if longest <= _LONGEST_ROW else math.ceil(math.sqrt(longest))
    places, shown, row = [], {}, 0
    for start, length in zip(starts[:-1], lengths, strict=True):
        k = int(classes[start])
        shown[row] = showable(names[k]) if k < len(names) else f"class {k}"
        places.append(row * columns + torch.arange(length))
        row += math.ceil(length / columns)
    return ClassRows(columns, torch.cat(places), shown)


def strip_width(tile_width: int) -> int:
    """Pixels of the names' strip beside tiles so wide; never a whole number of tiles, by which it can be told."""
    return STRIP + (STRIP % tile_width == 0)


def name_strip(names: Mapping[int, str], rows: int, tile_height: int, width: int) -> np.ndarray:
    """Names of rows, black on white, uint8 `[rows * tile_height + 1, width, 3]`; names too long are cut."""
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (width, rows * tile_height + 1), "white")
    draw, font = ImageDraw.Draw(strip), _font(min(_LETTER, tile_height - 1))
    for row, name in names.items():
        text = name
        while len(text) > 1 and draw.textlength(text, font=font) > width - 8:
            text = text[:-2] + "…"
        top = row * tile_height + (tile_height + 1 - _LETTER) // 2
        draw.text((4, max(row * tile_height, top)), text, fill="black", font=font)
    return np.array(strip)


def _font(height: int):  # noqa: ANN202  Pillow has two unrelated types
    """matplotlib's own font, which has most letters that are no ideographs; Pillow's built-in one without FreeType."""
    from pathlib import Path

    from PIL import ImageFont

    try:
        import matplotlib

        return ImageFont.truetype(
            str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), max(6, height)
        )
    except (ImportError, OSError):
        return ImageFont.load_default()
