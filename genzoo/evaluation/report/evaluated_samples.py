"""Samples of a model beside real images, all in the features of one extractor, which had no part in making the model.

They are drawn and seen once, whatever is asked of them: evaluated against the split's images, and against training
images in the same number, which a model that copies comes nearer to.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.progress_bar import progress_bar
from genzoo.core.random import seeded
from genzoo.data.split import TensorSplit
from genzoo.evaluation.drawing import Drawn, draw_for
from genzoo.evaluation.features.extractor import Extractor, refuse_conditioning_encoder
from genzoo.evaluation.features.feature_space import CHUNK, FeatureSpace
from genzoo.evaluation.likelihood import subset
from genzoo.metrics.quality import FeatureSets
from genzoo.models.base import GenerativeModel

if TYPE_CHECKING:
    from genzoo.data.image_data import ImageData
    from genzoo.data.split import Split

SAMPLES = 2000
SECONDS = 300.0
"""For drawing; what takes longer ends with the samples there are by then."""
REFERENCES = 10_000  # images, at most, that samples are compared with
TRAINING_IMAGES = 60_000  # training images, at most, that copies are looked for among


@dataclass(frozen=True)
class Inquiry:
    """The feature extractor, and how many samples; None: as many as there are images, at most `SAMPLES`."""

    extractor: Extractor
    samples: int | None = None
    max_seconds: float = SECONDS


@dataclass(frozen=True)
class ChosenImages:
    """Images of a split by their places long `[n]`."""

    split: "Split"
    places: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def first(self, most: int) -> "ChosenImages":
        """The first `most` of them."""
        return ChosenImages(self.split, self.places[:most])

    def with_classes(self, most: int) -> TensorSplit:
        """The first `most` images with their classes, in memory."""
        images, labels = self.split.batch(self.places[:most])
        return TensorSplit(images, labels)

    def features(self, space: FeatureSpace) -> Tensor:
        """Float64 `[n, width]`; no more than a part of the images is in memory at once."""
        parts = [space(self.split.batch(part).images) for part in self.places.split(CHUNK)]
        return torch.cat(parts) if parts else torch.zeros(0, space.width, dtype=torch.float64)


@dataclass(frozen=True)
class RealImages:
    """Those that samples are compared with, others of no training, and training images in random order."""

    evaluated: ChosenImages
    held: ChosenImages
    train: ChosenImages


@dataclass(frozen=True)
class EvaluatedSamples:
    """Samples, the real images, the features of all of them and what must be known of the feature extractor.

    `seconds` is the time that drawing and seeing took.
    """

    drawn: Drawn
    images: RealImages
    sets: FeatureSets
    space: FeatureSpace
    remark: str | None
    seconds: float


def evaluate_samples(
    model: GenerativeModel,
    data: "ImageData",
    split: str,
    inquiry: Inquiry,
    run: Path | None = None,
    *,
    seed: int = 0,
    max_images: int | None = None,
) -> EvaluatedSamples:
    """Draws samples of `model` and sees them; `run` is the folder that it was trained in.

    Raises `GenzooError` where the feature extractor took part in making the model or cannot see these images, and where
    there are fewer than two samples or images.
    """
    _check(model, split)
    start = time.perf_counter()
    remark = inquiry.extractor.remark(data, split)
    space = inquiry.extractor.make(data)
    refuse_conditioning_encoder(space, run, data)
    images = _real_images(data, split, seed, max_images)
    asked = min(SAMPLES, len(images.evaluated)) if inquiry.samples is None else inquiry.samples
    with progress_bar("samples", asked) as progress:
        drawn = draw_for(
            model, data, split, asked, seed=seed, max_seconds=inquiry.max_seconds, progress=progress
        )
    sets = _feature_sets(space, drawn, images, seed)
    return EvaluatedSamples(drawn, images, sets, space, remark, time.perf_counter() - start)


def _check(model: GenerativeModel, split: str) -> None:
    if model.spec.levels is None:
        raise GenzooError("samples are evaluated as images, these data are real-valued: pass --samples 0")
    if split == "train":
        raise GenzooError(
            "samples are compared with images that nothing was trained on: take --split test or val"
        )


def _real_images(data: "ImageData", split: str, seed: int, max_images: int | None) -> RealImages:
    evaluated, held = data.split(split), data.test if split == "val" else data.val
    most = REFERENCES if max_images is None else min(REFERENCES, max_images)
    chosen = subset(len(evaluated), most, seeded("cpu", "quality images", seed))
    if len(chosen) < 2:
        raise GenzooError(
            f"samples are compared with two images or more, there are {len(chosen)}: take another --split"
        )
    order = torch.randperm(len(data.train), generator=seeded("cpu", "quality train", seed))
    others = subset(len(held), REFERENCES, seeded("cpu", "quality held", seed))
    return RealImages(
        ChosenImages(evaluated, chosen), ChosenImages(held, others), ChosenImages(data.train, order[:TRAINING_IMAGES])
    )  # fmt: skip


def _feature_sets(space: FeatureSpace, drawn: Drawn, images: RealImages, seed: int) -> FeatureSets:
    real = images.evaluated.features(space)
    _check_dispersion(space, real)
    return FeatureSets(
        samples=space(drawn.images), real=real, held=images.held.features(space),
        train=images.train.features(space), seed=seed,
    )  # fmt: skip


def _check_dispersion(space: FeatureSpace, features: Tensor) -> None:
    if bool((features == features[0]).all()):
        raise GenzooError(
            f"the feature extractor {space.name} ({space.identity}) sees no difference between these images: "
            "take another --features"
        )
