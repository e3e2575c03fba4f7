"""How well a class-conditional model with a likelihood classifies."""

from typing import final

import torch
from typing_extensions import override

from genzoo.evaluation.generative_classifier import Classification, classify_split, log_prior
from genzoo.evaluation.report.baselines_section import shuffled
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.plain_json import finite
from genzoo.evaluation.report.schema import ClassificationResult
from genzoo.evaluation.report.section import Section, with_error, with_interval
from genzoo.metrics.estimate import Estimate
from genzoo.metrics.intervals import mean_estimate, share_estimate

CLASSIFIED_IMAGES = 1000  # images, at most, that are classified
CLASSIFIED_SECONDS = 120.0


@final
class ClassificationSection(Section):
    """The prior of classes is that of the training labels; nothing is fitted on the images evaluated."""

    name = "classification"

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        if not isinstance(case, Case) or case.model.spec.cond != "class":
            return False
        labels = case.data.split(case.split).labels
        return labels is not None and labels.ndim == 1 and case.has_likelihood

    @override
    def measure(self, case: Case) -> ClassificationResult:
        model, split = case.model, case.data.split(case.split)
        most = min(case.max_images or CLASSIFIED_IMAGES, CLASSIFIED_IMAGES)
        order = torch.randperm(len(split), generator=shuffled(case))[:most]
        found = classify_split(
            model, split, order, prior=log_prior(case.data.train.labels, model.spec.cond_size),
            max_seconds=CLASSIFIED_SECONDS, generator=case.generator("classification"),
        )  # fmt: skip
        return classification_result(case.name, found, case.split, case.seed)

    @override
    def rows(self, result: ClassificationResult) -> dict[str, str]:
        kind = result.kind.lower().replace("_", " ")
        right, nll = result.accuracy, result.nll
        return {
            "classifies": f"{with_interval(right, 4)} right "
            f"({result.images} images, {result.classes} classes, by {kind} likelihoods)",
            "-log p(class | image)": f"{with_error(nll.value, nll.stderr, 3)} nats",
            "calibration error": f"{result.calibration_error.value:.3f}, at a mean confidence of "
            f"{result.confidence.value:.3f}",
        }


def classification_result(test_id: str, found: Classification, split: str, seed: int) -> ClassificationResult:
    """What was found as reports hold it."""

    def figure(value: float, *, better: bool | None = False) -> Estimate:
        return Estimate(value, 0, found.images, higher_is_better=better)

    return ClassificationResult(
        test_id, share_estimate(found.accuracy, found.images), mean_estimate(found.nll, found.nll_stderr, found.images),
        figure(found.calibration_error), figure(found.confidence, better=None), found.images, found.classes,
        found.kind.name, finite(found.details), split, seed,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
