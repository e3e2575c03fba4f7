"""What the sections of `benchmarks.validate_metrics` share: images, judges, scores, bars and tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any

import torch
from scipy.stats import kendalltau, spearmanr
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.random import seeded
from genzoo.data.image_data import ImageData
from genzoo.evaluation.features.extractor import BASIS_IMAGES, default_extractor
from genzoo.evaluation.features.feature_space import FeatureSpace, pixel_space, random_space, some_images
from genzoo.metrics.diversity import sliced_wasserstein
from genzoo.metrics.frechet import frechet_distance
from genzoo.metrics.kernels import kid
from genzoo.metrics.neighbours import neighbour_metrics

FEWEST = 20
"""Images without which nothing is validated."""
DEFAULT, PIXELS, RANDOM = "default", "pixels", "random"
FRECHET = "Fréchet"
SCORES = (FRECHET, "KID", "sliced W", "1-precision", "1-recall", "1-coverage")
"""The names of what `scores` gives."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Bar:
    """What must hold, what was found, and whether it does."""

    text: str
    found: str
    passed: bool

    def __str__(self) -> str:
        return f"{'passes' if self.passed else 'FAILS'}: {self.text}: {self.found}"


@dataclass(frozen=True)
class Found:
    """What a section found: lines of tables, bars, and all figures as plain values."""

    lines: list[str]
    bars: list[Bar]
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """The images that judge, those that are spoilt or mixed, and who sees them.

    `real` are validation images; whatever stands for samples comes from training images. No test image is used.
    """

    data: ImageData
    images: int
    seeds: int
    seed: int
    say: Say
    truth_steps: int = 400
    """Of training the model whose draws the ground truth is made of."""
    truth_crops: bool = False
    """The ground truth is of crops in colour rather than of coarse grey images."""

    @property
    def levels(self) -> int:
        """Raises `GenzooError` for real-valued data."""
        if self.data.spec.levels is None:
            raise GenzooError("metrics are validated on images of whole numbers: --data names another kind")
        return self.data.spec.levels

    @cached_property
    def real(self) -> Tensor:
        """Validation images. Raises `GenzooError` where there are too few of them."""
        return self._enough(some_images(self.data.val, self.images, self.seed))

    @cached_property
    def base(self) -> Tensor:
        """Training images, as many."""
        return self._enough(some_images(self.data.train, self.images, self.seed))

    def _enough(self, images: Tensor) -> Tensor:
        if len(images) < FEWEST:
            raise GenzooError(
                f"there are {len(images)} images, {FEWEST} are needed: raise --images or take other --data"
            )
        return images

    @cached_property
    def spaces(self) -> dict[str, FeatureSpace]:
        """The default feature extractor first, and the two that need no training."""
        return {DEFAULT: default_extractor(self.data, say=self.say), **untrained(self.data)}

    @cached_property
    def judges(self) -> dict[str, FeatureSpace]:
        """The default feature extractor, and others that differ from it in the seed alone."""
        own = {
            f"seed {seed}": default_extractor(self.data, seed=seed, say=self.say)
            for seed in range(1, self.seeds)
        }
        return {DEFAULT: self.spaces[DEFAULT], **own}

    @cached_property
    def real_features(self) -> dict[str, Tensor]:
        """Of `real`, by space."""
        return embedded(self.spaces, self.real)

    def generator(self, *purpose: str | int) -> torch.Generator:
        """For what is drawn in a section."""
        return seeded("cpu", "validate", *purpose, self.seed)


# --- judges ------------------------------------------------------------------------------------------------------


def untrained(data: ImageData) -> dict[str, FeatureSpace]:
    """Principal components of pixels, and random convolutions."""
    return {PIXELS: pixel_space(data.train, BASIS_IMAGES), RANDOM: random_space(data.train, BASIS_IMAGES)}


def embedded(spaces: Mapping[str, FeatureSpace], images: Tensor) -> dict[str, Tensor]:
    """Features of `images`, float64 `[n, d]`, by space."""
    return {name: space(images) for name, space in spaces.items()}


def frechets(
    bench: Bench, spaces: Mapping[str, FeatureSpace], sets: Mapping[str, Tensor]
) -> dict[str, list[float]]:
    """The Fréchet distance of each of `sets` from the real images, by space and in the order of the sets."""
    found: dict[str, list[float]] = {}
    for name, space in spaces.items():
        real = space(bench.real)
        found[name] = [frechet_distance(real, space(images)) for images in sets.values()]
    return found


def scores(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Figures of features `[n, d]` and `[m, d]` by the names in `SCORES`, each the higher the worse."""
    near = neighbour_metrics(real, fake)
    values = (
        frechet_distance(real, fake),
        kid(real, fake).value,
        sliced_wasserstein(real, fake, generator=seeded("cpu", "directions")),
        1 - near.precision,
        1 - near.recall,
        1 - near.coverage,
    )
    return dict(zip(SCORES, values, strict=True))


def distance_alone(real: Tensor, fake: Tensor) -> dict[str, float]:
    """The first of `scores`, which costs little."""
    return {FRECHET: frechet_distance(real, fake)}


def columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """One list for each score, from one mapping for each set."""
    return {name: [row[name] for row in rows] for name in rows[0]}


# --- figures -----------------------------------------------------------------------------------------------------


def kendall(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b; 0 where one is constant: it tells nothing of the other."""
    return _correlation(kendalltau, x, y)


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's correlation of ranks; 0 where one is constant."""
    return _correlation(spearmanr, x, y)


def _correlation(of: Callable[..., Any], x: Sequence[float], y: Sequence[float]) -> float:
    return 0.0 if len({*x}) < 2 or len({*y}) < 2 else float(of(x, y).statistic)


def rises(values: Sequence[float]) -> bool:
    """Whether each is above the one before."""
    return all(a < b for a, b in pairwise(values))


def agreement(rankings: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Kendall's tau of each pair of extractors' figures of the same sets."""
    return {f"{a} / {b}": kendall(rankings[a], rankings[b]) for a, b in combinations(rankings, 2)}


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines with aligned columns, numbers to four digits."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            c.ljust(w) if n == 0 else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
