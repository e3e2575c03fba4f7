"""How well a model tells images of other data from those of its own."""

from dataclasses import replace
from typing import final

from typing_extensions import override

from genzoo.core.errors import GenzooError
from genzoo.core.random import seeded
from genzoo.evaluation.baselines import IndependentPixels
from genzoo.evaluation.likelihood import subset
from genzoo.evaluation.ood import OODScores, likelihood_bits, ood_scores, separation, separation_stderr
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.schema import OODResult
from genzoo.evaluation.report.section import Section, with_interval
from genzoo.metrics.estimate import Estimate
from genzoo.metrics.intervals import share_estimate

OOD_IMAGES = 500  # images of each kind, at most, that scores are compared on
BACKGROUND_IMAGES = 20_000  # training images, at most, that the background of a likelihood ratio is fitted on


@final
class OODSection(Section):
    """Typicality is measured from the validation split's mean.

    Class-conditional models sum over their classes, there as elsewhere: strangers have no class.
    """

    name = "ood"

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, Case) and case.ood is not None

    @override
    def measure(self, case: Case) -> OODResult:
        assert case.ood is not None
        most = case.max_images or OOD_IMAGES
        entropy = self._entropy(case, most)
        generator, scores = case.generator("outliers"), []
        background = independent_pixels(case)
        for images in (case.data.split(case.split), case.ood.data.split(case.split)):
            chosen = images.batch(subset(len(images), most, seeded("cpu", "outliers", case.seed))).images
            scores.append(
                ood_scores(case.model, chosen, entropy=entropy, background=background, generator=generator)
            )  # fmt: skip
        own, others = (len(score.likelihood) for score in scores)
        kind = scores[0].kind.name
        return OODResult(case.name, case.ood.name, auroc_figures(*scores), entropy, (own, others), kind)

    def _entropy(self, case: Case, most: int) -> float:
        """Mean bits/dim of `most` validation images."""
        val = case.data.split("val")
        if len(val) == 0:
            raise GenzooError("typicality needs validation images, and the data have none")
        chosen = val.batch(subset(len(val), most, seeded("cpu", "entropy", case.seed))).images
        return likelihood_bits(case.model, chosen, generator=case.generator("entropy"))[0].mean().item()

    @override
    def rows(self, result: OODResult) -> dict[str, str]:
        return {f"AUROC by {score}": with_interval(figure, 3) for score, figure in result.auroc.items()}


def auroc_figures(inside: OODScores, outside: OODScores) -> dict[str, Estimate]:
    """The AUROC of each score; its interval is that of a share with DeLong's standard error."""
    own, others, errors = len(inside.likelihood), len(outside.likelihood), separation_stderr(inside, outside)
    found = separation(inside, outside)
    return {
        name: replace(share_estimate(value, min(own, others), stderr=errors[name]), references=own + others)
        for name, value in found.items()
    }


def independent_pixels(case: Case) -> IndependentPixels | None:
    """A histogram of each sub-pixel of training images, as the background of a ratio; None for real-valued data."""
    train, spec = case.data.train, case.model.spec
    if spec.levels is None:
        return None
    chosen = subset(len(train), BACKGROUND_IMAGES, seeded("cpu", "background", case.seed))
    return IndependentPixels.fit(train.batch(chosen).images, spec)
