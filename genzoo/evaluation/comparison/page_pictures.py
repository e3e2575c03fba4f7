"""Pictures of runs for a page that stands alone: sample grids cut to one size, a row per class, neighbours."""

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from genzoo.core.errors import GenzooError
from genzoo.core.picture_files import open_picture
from genzoo.core.regular_files import UnreadableFile, is_within
from genzoo.data.class_choice import joined
from genzoo.data.class_rows import strip_width
from genzoo.data.image_grid import TILE
from genzoo.evaluation.comparison.entries import Entry
from genzoo.evaluation.illustrations import DENOISING, INTERPOLATIONS, RECONSTRUCTIONS
from genzoo.evaluation.report.picture_places import (
    BY_CLASS,
    JUDGED,
    MOST_CLASSES,
    NEIGHBOURS,
    PER_CLASS,
    TYPICAL,
    place_of,
)

if TYPE_CHECKING:
    from PIL.Image import Image

CLASS_GRID = Path("samples") / "classes.png"
"""Samples of each class, of a run that can be asked for them; means lie beside, see `class_grid`."""
MOST_PIXELS = 2000
"""Pictures that are not cut are shrunk to at most this many pixels a side."""
MOST_FILES = 8
"""Pictures of one kind that a run may have on a page."""


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, `width` x `height` pixels; or `problem`, why there is none."""

    name: str
    uri: str = ""
    width: int = 0
    height: int = 0
    caption: str = ""
    problem: str = ""
    rows: int = 0
    """Classes that it shows, a row each; 0 where rows are none."""


@dataclass(frozen=True)
class Tiles:
    """A grid picture that `genzoo.data.image_grid.image_grid` made, and how it divides into images."""

    picture: "Image"
    side: tuple[int, int]
    columns: int
    rows: int

    def cut(self, columns: int, rows: int) -> "Image":
        """The upper left part with so many images."""
        return self.picture.crop((0, 0, columns * self.side[0] + 1, rows * self.side[1] + 1))

    def regrouped(self, columns: int, count: int) -> "Image":
        """The first `count` images in rows of `columns`."""
        from PIL import Image

        w, h = self.side
        result = Image.new("RGB", (columns * w + 1, math.ceil(count / columns) * h + 1), (128, 128, 128))
        for i in range(min(count, self.columns * self.rows)):
            x, y = i % self.columns * w, i // self.columns * h
            tile = self.picture.crop((x, y, x + w + 1, y + h + 1))
            result.paste(tile, (i % columns * w, i // columns * h))
        return result


def tiles_of(path: Path, run: Path, shape: Sequence[int]) -> Tiles | None:
    """The grid in the file `path` of `run`, of images `[c, h, w]`; None where it is divided otherwise.

    Raises `GenzooError` where it cannot be read.
    """
    picture = _open(path, run)
    factor = max(1, math.ceil(TILE / max(shape[1:])))
    side = (shape[2] * factor + 1, shape[1] * factor + 1)
    width, height = picture.width - 1, picture.height - 1
    strip = strip_width(side[0])
    if width % side[0] and width > strip:  # names of classes beside the images
        picture, width = picture.crop((strip, 0, picture.width, picture.height)), width - strip
    if width % side[0] or height % side[1] or not width or not height:
        return None
    return Tiles(picture, side, width // side[0], height // side[1])


def _open(path: Path, run: Path) -> "Image":
    """A picture of the run folder `run`; raises `GenzooError` where it is none, or lies elsewhere.

    A page that is passed on must not show what a link in somebody's folder points to.
    """
    if not is_within(path, run):
        raise UnreadableFile(path, "it is a link that leads out of the run folder")
    with open_picture(path) as picture:
        return picture.convert("RGB")


def sample_file(run: Path, decode: str = "draw") -> Path | None:
    """The grid of samples of the finished run, else of its evaluation, else the last one drawn in training.

    Means are in the grid of their evaluation alone.
    """
    if decode != "draw":
        path = run / place_of(JUDGED, decode)
        return path if os.path.lexists(path) else None
    finished = [path for path in (run / "samples" / "final.png", run / JUDGED) if os.path.lexists(path)]
    steps = sorted((run / "samples").glob("step_*.png"))
    return finished[0] if finished else steps[-1] if steps else None


def sample_pictures(entries: Sequence[Entry]) -> list[Picture]:
    """A grid of each run, all of equally many images at one scale; the reason where a run has none."""
    found: dict[str, Tiles | Picture] = {entry.name: _samples(entry) for entry in entries}
    grids = [tiles for tiles in found.values() if isinstance(tiles, Tiles)]
    columns = min((tiles.columns for tiles in grids), default=0)
    rows = min((tiles.rows for tiles in grids), default=0)
    return [
        picture(name, tiles.cut(columns, rows), f"{columns * rows} samples")
        if isinstance(tiles, Tiles)
        else tiles
        for name, tiles in found.items()
    ]


def _samples(entry: Entry) -> Tiles | Picture:
    if entry.run is None:
        return Picture(
            entry.name, problem="no pictures were drawn of a model in memory; give evaluate a folder `out`"
        )
    path = sample_file(entry.run, entry.decode)
    if path is None:
        return Picture(entry.name, problem=f"no samples yet; draw some with: genzoo sample {entry.run}")
    try:
        tiles = tiles_of(path, entry.run, entry.spec.shape) if entry.spec.levels is not None else None
        if tiles is not None and entry.spec.cond != "vector":
            return tiles
        drawn = _open(path, entry.run)
        return picture(entry.name, drawn, "as drawn: images of its condition among the samples")
    except GenzooError as error:
        return Picture(entry.name, problem=f"{error}; draw again with: genzoo sample {entry.run}")


def class_pictures(entries: Sequence[Entry]) -> list[Picture]:
    """A row per class of each run: as asked for, and what draws it where it is not there; else as they came about."""
    found = [_class_picture(entry) if entry.class_count else _found_classes(entry) for entry in entries]
    return [shown for shown in found if shown is not None]


def _found_classes(entry: Entry) -> Picture | None:
    """Samples of a run that takes no classes, by the class that the feature extractor finds in them."""
    path = entry.run / place_of(BY_CLASS, entry.decode) if entry.run else None
    if path is None or entry.run is None or not os.path.lexists(path):
        return None
    try:
        tiles = tiles_of(path, entry.run, entry.spec.shape)
    except GenzooError as error:
        return Picture(entry.name, problem=str(error))
    if tiles is None:
        return None
    shown = picture(entry.name, tiles.picture, "drawn without asking, sorted by the feature extractor")
    return replace(shown, rows=tiles.rows)


def _class_picture(entry: Entry) -> Picture | None:
    if entry.run is None or not entry.is_run:
        return None
    path, classes = class_grid(entry.run, entry.decode), min(entry.class_count, MOST_CLASSES)
    problem = f"not drawn yet; draw with: {' '.join(class_command(entry))}"
    if not os.path.lexists(path):
        return Picture(entry.name, problem=problem)
    try:
        tiles = tiles_of(path, entry.run, entry.spec.shape)
    except GenzooError as error:
        return Picture(entry.name, problem=f"{error}; {problem.replace('not drawn yet; draw', 'draw again')}")
    if tiles is None or tiles.columns * tiles.rows < classes * PER_CLASS:
        return Picture(entry.name, problem=problem)
    shown = picture(entry.name, tiles.regrouped(PER_CLASS, classes * PER_CLASS), "as asked for")
    return replace(shown, rows=classes)


def class_grid(run: Path, decode: str = "draw") -> Path:
    """Where the class grid of a run lies, of samples that were decoded so."""
    return run / place_of(CLASS_GRID, decode)


def class_command(entry: Entry) -> list[str]:
    """What draws the class grid of a run that takes classes."""
    assert entry.run is not None
    classes = range(min(entry.class_count, MOST_CLASSES))
    names = class_names([entry])[: len(classes)]
    # where names are numbers of their own, numbers would be taken for names
    asked = joined(names) if any(name.strip().isdecimal() for name in names) else ",".join(map(str, classes))
    asked = ["--cond", asked, "--n", str(len(classes) * PER_CLASS)]
    asked += [] if entry.decode == "draw" else ["--decode", entry.decode]
    return ["genzoo", "sample", str(entry.run), *asked, "--out", str(class_grid(entry.run, entry.decode))]


def class_names(entries: Sequence[Entry]) -> list[str]:
    """Names of the classes that rows show; their numbers where they have no names."""
    from genzoo.data.sources import class_names_of

    protocols = [entry.config.get("data") for entry in entries]
    stored = next((p["classes"] for p in protocols if isinstance(p, Mapping) and p.get("classes")), None)
    names = list(stored or class_names_of(entries[0].data))
    return [str(names[i]) if i < len(names) else str(i) for i in range(MOST_CLASSES)]


def work_pictures(entries: Sequence[Entry]) -> list[tuple[str, list[Picture]]]:
    """What evaluations have drawn of the models at work, by what it shows."""
    kinds = {
        "Images beside their reconstructions": RECONSTRUCTIONS,
        "How samples come about": DENOISING,
        "Ways from one image, or latent, to another": INTERPOLATIONS,
    }
    draws = [entry for entry in entries if entry.decode == "draw"]  # means are not what these are about
    found = [(title, _pictures(draws, [name])) for title, name in kinds.items()]
    return [(title, pictures) for title, pictures in found if pictures]


def typical_pictures(entries: Sequence[Entry]) -> list[Picture]:
    """The best, the median and the worst samples of the runs that have such a picture."""
    return [
        shown
        for entry in entries
        for shown in _pictures([entry], [place_of(TYPICAL, entry.decode).as_posix()])
    ]


def neighbour_pictures(entries: Sequence[Entry]) -> list[Picture]:
    """Samples with the training images nearest to them, of the runs that have such a picture."""
    patterns = ["samples/*neighbour*.png", "*neighbour*.png"]
    means = f"*{place_of(NEIGHBOURS, 'mean').name}"
    return [
        shown
        for entry in entries
        for shown in (
            _pictures([entry], [f"samples/{means}"])
            if entry.decode == "mean"
            else _pictures([entry], patterns, leave=means)
        )
    ]


def _pictures(entries: Sequence[Entry], patterns: Sequence[str], leave: str = "") -> list[Picture]:
    """The files of each run that fit, without those whose names fit `leave`, of each at most `MOST_FILES`."""
    found = []
    for entry in entries:
        if entry.run is None:
            continue
        paths = [path for pattern in patterns for path in sorted(entry.run.glob(pattern))]
        paths = [path for path in paths if not (leave and path.match(leave))]
        for path in paths[:MOST_FILES]:
            try:
                found.append(picture(entry.name, _open(path, entry.run)))
            except GenzooError as error:
                found.append(Picture(entry.name, problem=str(error)))
    return found


def picture(name: str, image: "Image", caption: str = "") -> Picture:
    """`image` as a PNG data URI, of one channel where it is grey."""
    import numpy as np

    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    colours, buffer = np.asarray(image), io.BytesIO()
    grey = bool((colours == colours[..., :1]).all())
    (image.convert("L") if grey else image).save(buffer, format="PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(name, uri, image.width, image.height, caption)
