"""What is evaluated: a model and the images it is evaluated on, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from genzoo.core.attempts import Attempts
from genzoo.core.errors import GenzooError, NoLikelihood
from genzoo.core.progress_bar import progress_bar
from genzoo.core.random import seeded
from genzoo.data.identity import split_id
from genzoo.evaluation.features.feature_space import FeatureSpace
from genzoo.evaluation.likelihood import LikelihoodReport, evaluate_likelihood
from genzoo.evaluation.report.evaluated_samples import EvaluatedSamples, Inquiry, evaluate_samples
from genzoo.evaluation.report.sample_schema import DecodingName
from genzoo.objectives.likelihood.decoder import Annealing

if TYPE_CHECKING:
    from genzoo.data.image_data import ImageData
    from genzoo.models.base import GenerativeModel


@dataclass(frozen=True)
class OODData:
    """Other data by their name, which a model is to tell from its own."""

    name: str
    data: "ImageData"


@dataclass(frozen=True)
class AISOptions:
    """How a generator without likelihood is evaluated with noise added: on so many images, by such annealing."""

    images: int
    annealing: Annealing = field(default_factory=Annealing)


@dataclass(frozen=True)
class Case:
    """A model, the images that it is evaluated on, and how: `max_seconds` is for each measurement of likelihoods.

    `run` is the folder that the model was trained in and `out` that where pictures go, None for neither. The other
    parts ask questions that are not asked otherwise.
    """

    model: "GenerativeModel"
    data: "ImageData"
    split: str
    seed: int = 0
    max_images: int | None = None
    max_seconds: float | None = None
    run: Path | None = None
    out: Path | None = None
    inquiry: Inquiry | None = None
    ood: OODData | None = None
    ais: AISOptions | None = None
    samples_only: bool = False
    published: Mapping[str, FeatureSpace] = field(default_factory=dict)
    """Spaces of published networks that samples are seen in, too, by name."""
    attempts: Attempts = field(default_factory=Attempts, compare=False)
    """Of what goes with an answer, such as its picture: what fails here costs no figures."""

    @property
    def decode(self) -> DecodingName:
        """How samples come of the model."""
        return self.model.decoding.value

    @property
    def name(self) -> str:
        """What the evaluated images are called in reports."""
        return set_id(self.data, self.split)

    def generator(self, purpose: str) -> torch.Generator:
        """On the model's device, the same for the same seed and purpose."""
        return seeded(self.model.device, purpose, self.seed)

    @cached_property
    def _outcome(self) -> LikelihoodReport | Exception:
        try:
            return measure(
                self.model, self.data, self.split, seed=self.seed, max_images=self.max_images,
                max_seconds=self.max_seconds,
            )  # fmt: skip
        except Exception as reason:
            return reason

    @property
    def measured(self) -> LikelihoodReport | NoLikelihood:
        """The likelihood of the images, measured once; where the family has none, the reason.

        What goes wrong is raised each time that it is asked for, and not tried again.
        """
        if isinstance(self._outcome, Exception) and not isinstance(self._outcome, NoLikelihood):
            raise self._outcome
        return self._outcome

    @cached_property
    def samples(self) -> EvaluatedSamples:
        """Samples beside real images, drawn and seen once; raises `GenzooError` where none are asked for."""
        if self.inquiry is None:
            raise GenzooError("no samples are asked for: name a feature extractor of them")
        return evaluate_samples(
            self.model, self.data, self.split, self.inquiry, self.run, seed=self.seed, max_images=self.max_images
        )  # fmt: skip

    @property
    def has_likelihood(self) -> bool:
        """Whether the family gives images a probability."""
        return isinstance(self.measured, LikelihoodReport)

    def likelihood_report(self) -> LikelihoodReport:
        """The likelihood; raises `NoLikelihood` where the family has none."""
        if isinstance(self.measured, NoLikelihood):
            raise self.measured
        return self.measured


def set_id(data: "ImageData", split: str) -> str:
    """What names a set of images in reports: figures can be compared where it is the same."""
    return split_id(data.protocol, data.name, split)


def measure(
    model: "GenerativeModel",
    data: "ImageData",
    split: str,
    *,
    seed: int = 0,
    max_images: int | None = None,
    max_seconds: float | None = None,
) -> LikelihoodReport:
    """The likelihood of one split of `data`, with a progress bar; what came in time with `max_seconds`.

    Raises `NoLikelihood` where the family has none, `GenzooError` where there are no images.
    """
    images = data.split(split)
    generator = seeded(model.device, "evaluate", seed, split)
    with progress_bar(f"{split} likelihood", min(len(images), max_images or len(images))) as progress:
        return evaluate_likelihood(
            model, images, max_images=max_images, max_seconds=max_seconds, generator=generator, progress=progress
        )  # fmt: skip
