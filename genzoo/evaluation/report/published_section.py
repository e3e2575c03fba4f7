"""Samples in the features of published networks, beside those of the extractor that they are judged by."""

import time
from typing import final

import torch
from typing_extensions import override

from genzoo.evaluation.features.extractor import refuse_conditioning_encoder
from genzoo.evaluation.features.feature_space import FeatureSpace
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.sample_schema import ExtractorFacts, PublishedResult
from genzoo.evaluation.report.section import Section
from genzoo.metrics.estimate import Estimate, display_name
from genzoo.metrics.metric_registry import METRICS, collected
from genzoo.metrics.quality import FeatureSets

FRECHET = "frechet"


@final
class PublishedSection(Section):
    """The Fréchet distance as papers have it; with as many real images as there are samples, since these networks are
    slow."""

    name = "published"
    of_samples = True

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, Case) and case.inquiry is not None and bool(case.published)

    @override
    def measure(self, case: Case) -> PublishedResult:
        start, samples = time.perf_counter(), case.samples
        figures, missing = collected(
            {f"{FRECHET}_{name}": lambda name=name, space=space: _figure(case, name, space)
             for name, space in case.published.items()}
        )  # fmt: skip
        extractors = {
            f"{FRECHET}_{name}": ExtractorFacts(space.name, space.identity, space.width, space.scale)
            for name, space in case.published.items()
        }
        return PublishedResult(
            case.name, extractors, figures, missing, len(samples.drawn.images), case.seed,
            time.perf_counter() - start, case.decode,
        )  # fmt: skip

    @override
    def rows(self, result: PublishedResult) -> dict[str, str]:
        rows = {display_name(name): str(figure) for name, figure in result.figures.items()}
        return rows | {display_name(name): f"none: {reason}" for name, reason in result.missing.items()}


def _figure(case: Case, name: str, space: FeatureSpace) -> dict[str, Estimate]:
    """Raises `GenzooError` where the network took part in making the model."""
    refuse_conditioning_encoder(space, case.run, case.data)
    samples = case.samples
    drawn, images = samples.drawn.images, samples.images
    n = len(drawn)
    others = [images.held.first(n), images.train.first(max(0, n - len(images.held)))]
    sets = FeatureSets(
        samples=space(drawn), real=images.evaluated.first(n).features(space),
        held=torch.cat([part.features(space) for part in others]), train=torch.zeros(0, space.width).double(),
        seed=case.seed,
    )  # fmt: skip
    row = METRICS.rows[FRECHET]
    return {f"{FRECHET}_{name}": row.measure(row, sets).directed(row.direction)}
