"""A picture of vectors: a plane in which neighbours stay neighbours, coloured by class."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genzoo.core.errors import GenzooError
from genzoo.core.files import MADE_BY, write_product
from genzoo.core.showable import plot_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 2000
COMPONENTS = 50  # principal components that t-SNE starts from
PERPLEXITY = 30.0
FEWEST_POINTS = 4
MOST_NAMED = 20  # classes, beyond which a legend is longer than the picture


def plane(vectors: Tensor, *, seed: int = 0) -> Tensor:
    """Vectors `[n, d]` to points `[n, 2]`, float32: unit vectors, their principal components, t-SNE of these.

    Distances of unit vectors follow the cosine that probes go by. Equal seeds give equal points (van der Maaten &
    Hinton 2008). Raises `GenzooError` for fewer than four vectors, of which nothing can be seen.
    """
    from sklearn.decomposition import PCA  # late: slow to import
    from sklearn.manifold import TSNE

    if len(vectors) < FEWEST_POINTS:
        raise GenzooError(f"a map needs {FEWEST_POINTS} images or more, got {len(vectors)}")
    rows = F.normalize(vectors.double().cpu(), dim=1).numpy()
    parts = PCA(min(COMPONENTS, *rows.shape), random_state=seed).fit_transform(rows)
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(parts)
    return torch.from_numpy(points).float()


def save_embedding_map(
    vectors: Tensor,
    labels: Tensor | None,
    path: Path,
    *,
    title: str = "embeddings",
    generator: torch.Generator | None = None,
    inside: Path | None = None,
) -> None:
    """Writes a PNG of at most 2,000 of the vectors `[n, d]`, chosen by `generator` (on the CPU).

    Points have the colours of `labels` (long `[n]`), whose numbers stand where most of their points are. Raises
    `GenzooError` for fewer than four vectors or where the file cannot be written.
    """
    from matplotlib.figure import Figure

    chosen = torch.randperm(len(vectors), generator=generator)[:MOST_POINTS]
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    points = plane(vectors[chosen], seed=seed)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.set(
        xticks=[], yticks=[], title=f"{plot_text(title, 60)}: t-SNE of {len(points)} images", aspect="equal"
    )
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], s=8, linewidths=0)
    else:
        _draw_classes(axes, points, labels.cpu()[chosen])
        if len(labels.unique()) <= MOST_NAMED:
            figure.legend(title="class", loc="outside right upper", markerscale=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": MADE_BY})
    write_product(path, buffer.getvalue(), inside=inside)


def _draw_classes(axes: "Axes", points: Tensor, labels: Tensor) -> None:
    classes = labels.unique().tolist()
    for label, colour in zip(classes, _colours(len(classes)), strict=True):
        mine = points[labels == label]
        axes.scatter(mine[:, 0], mine[:, 1], s=8, linewidths=0, color=colour, label=str(label))
    for label in (
        classes if len(classes) <= MOST_NAMED else []
    ):  # after all points, so that none covers a number
        x, y = _middle(points[labels == label])
        box = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "alpha": 0.8, "linewidth": 0.0}
        axes.annotate(str(label), (x, y), ha="center", va="center", weight="bold", bbox=box)


def _middle(points: Tensor) -> list[float]:
    """The point of `[n, 2]` with the least total distance to the others: inside a cluster, however it is bent."""
    return points[torch.cdist(points, points).sum(1).argmin()].tolist()


def _colours(count: int) -> list[Any]:
    """Colours that can be told apart where there are up to 20, else along a scale."""
    from matplotlib import colormaps

    if count <= MOST_NAMED:
        return [colormaps["tab10" if count <= 10 else "tab20"](i) for i in range(count)]
    return [colormaps["nipy_spectral"](i / count) for i in range(count)]
