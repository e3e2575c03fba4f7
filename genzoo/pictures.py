"""PNG files of a run: grids of samples, and the loss curve."""

import io
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genzoo.checkpoint import write_atomically
from genzoo.contract import DataSpec, GenerativeModel
from genzoo.data.pairs import PairedSplit
from genzoo.evaluation.translation import translation_picture
from genzoo.runtime import seeded

if TYPE_CHECKING:
    from genzoo.data.split import Split

TILE = 64  # small images are enlarged to about this many pixels
PICTURES = 16
PICTURE_SHARE = 0.05


def image_grid(images: Tensor, levels: int, columns: int | None = None) -> Tensor:
    """Integer images `[n, c, h, w]` in 0..levels-1 to one RGB picture, uint8 `[height, width, 3]`.

    Pixels are enlarged by a whole factor, tiles are one grey pixel apart. Images of two channels or more
    than three show their first channel.
    """
    n, c, h, w = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    factor = max(1, math.ceil(TILE / max(h, w)))
    scaled = (images.cpu().double() * (255 / (levels - 1))).round().to(torch.uint8)
    scaled = scaled if c == 3 else scaled[:, :1].expand(n, 3, h, w)
    scaled = scaled.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    th, tw = h * factor + 1, w * factor + 1
    grid = torch.full((3, rows * th + 1, columns * tw + 1), 128, dtype=torch.uint8)
    for i, tile in enumerate(scaled):
        y, x = (i // columns) * th + 1, (i % columns) * tw + 1
        grid[:, y : y + th - 1, x : x + tw - 1] = tile
    return grid.permute(1, 2, 0).contiguous()


def save_grid(images: Tensor, spec: DataSpec, path: str | Path, columns: int | None = None) -> None:
    """Writes `image_grid` of integer images `[n, c, h, w]` as PNG; does nothing for real-valued data.

    Raises `GenzooError` where the file cannot be written.
    """
    from PIL import Image

    if spec.levels is None:
        return
    buffer = io.BytesIO()
    Image.fromarray(image_grid(images, spec.levels, columns).numpy()).save(buffer, format="PNG")
    write_atomically(Path(path), buffer.getvalue())


def save_triples(triples: Tensor, spec: DataSpec, path: str | Path) -> None:
    """Writes input, prediction and truth of integer images `[n, 3, c, h, w]` as PNG, four threes in a row."""
    save_grid(triples.flatten(0, 1), spec, path, columns=3 * min(4, len(triples)))


def save_curve(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Writes training and validation loss over steps as PNG, from the rows of `metrics.jsonl`."""
    from matplotlib.figure import Figure  # without pyplot, which keeps global state

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for key, label, style in (("loss", "training", "-"), ("val_loss", "validation", "o-")):
        points = [(r["step"], r[key]) for r in rows if r.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
    axes.set(xlabel="step", ylabel="loss (nats)")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
        axes.set_ylim(*_limits([y for line in axes.lines for y in line.get_ydata()]))  # pyright: ignore
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(Path(path), buffer.getvalue())


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Axis limits that leave out the highest twentieth, the steep start of a run."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[math.ceil(0.95 * (len(ordered) - 1))]
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


class Gallery:
    """Sample grids in the folder `folder` (None draws nothing), as long as drawing stays cheap.

    After the first grid another one is drawn only where all grids together then take at most
    `PICTURE_SHARE` of the time so far. The random numbers are the same each time.
    """

    def __init__(self, folder: Path | None, split: "Split", seed: int) -> None:
        self.folder, self.split, self.seed = folder, split, seed
        self.spent = self.last = 0.0

    def affordable(self, seconds: float) -> bool:
        """Whether one more grid, `seconds` into the run, keeps to the share of time."""
        return not self.spent or self.spent + self.last <= PICTURE_SHARE * seconds

    def draw(self, model: nn.Module, step: int) -> None:
        """A grid of `model` at step `step`; nothing for encoders and for real-valued data.

        Of pairs it shows input, sample and truth.
        """
        if self.folder is None or not isinstance(model, GenerativeModel) or model.spec.levels is None:
            return
        start, path = time.monotonic(), self.folder / f"step_{step:07d}.png"
        generator = seeded(model.device, "pictures", self.seed)
        if isinstance(self.split, PairedSplit):
            save_triples(translation_picture(model, self.split, generator=generator), model.spec, path)
        else:
            cond = self._vectors(model)
            n = PICTURES if cond is None else len(cond)
            save_grid(model.sample(n, cond, generator=generator), model.spec, path)
        self.last = time.monotonic() - start
        self.spent += self.last

    def _vectors(self, model: GenerativeModel) -> Tensor | None:
        """The first vectors of the data for a model conditioned on vectors, which cannot draw its own."""
        if model.spec.cond != "vector":
            return None
        first = torch.arange(min(PICTURES, len(self.split)))
        cond = self.split.batch(first).cond
        return None if cond is None else cond.to(model.device)
