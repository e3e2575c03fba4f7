"""What classical methods and codecs say of the same images: what a model must beat to have learnt anything."""

from typing import TYPE_CHECKING, final

import torch
from typing_extensions import override

from genzoo.core.random import seeded
from genzoo.evaluation.baselines import codec_baselines, fitted_baselines
from genzoo.evaluation.likelihood import subset
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.likelihood_section import likelihood_result
from genzoo.evaluation.report.schema import BaselinesResult, LikelihoodResult
from genzoo.evaluation.report.section import Section, with_error

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.data.split import Split

FIT_IMAGES = 20_000  # training images, at most, that baselines are fitted on
CHOICE_IMAGES = 2000  # validation images, at most, that their sizes are chosen on
CODED_IMAGES = 1000  # images, at most, that codecs write: they are slow


@final
class BaselinesSection(Section):
    """For integer images and a model with a likelihood.

    Of a conditional model the baselines are still unconditional: they see images only.
    """

    name = "baselines"

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, Case) and case.model.spec.levels is not None and case.has_likelihood

    @override
    def measure(self, case: Case) -> BaselinesResult:
        spec, data = case.model.spec, case.data
        train, val = (
            _images(data.split(name), most, seeded("cpu", "baselines", case.seed, name))
            for name, most in (("train", FIT_IMAGES), ("val", CHOICE_IMAGES))
        )
        judged = _images(data.split(case.split), case.max_images, shuffled(case))
        few = judged[torch.randperm(len(judged), generator=shuffled(case))[:CODED_IMAGES]]
        reports = {b.name: b.report(judged) for b in fitted_baselines(train, val, spec)}
        reports |= {b.name: b.report(few) for b in codec_baselines(spec)}
        found = {name: likelihood_result(case.name, report) for name, report in reports.items()}
        return BaselinesResult(case.name, found, case.split, case.seed)

    @override
    def rows(self, result: BaselinesResult) -> dict[str, str]:
        return {f"baseline: {name}": _bits_row(own) for name, own in result.likelihoods.items()}


def _bits_row(result: LikelihoodResult) -> str:
    bits = with_error(result.bits_per_dim.value, result.bits_per_dim.stderr, 4)
    return f"{result.symbol} {bits} bits/dim ({result.images} images)"


def _images(split: "Split", most: int | None, generator: torch.Generator) -> "Tensor":
    """All images of a split, or a random `most` of them, in the fixed draw; in memory."""
    chosen = subset(len(split), most, generator)
    return torch.cat([split.batch(part).images for part in chosen.split(1000)])


def shuffled(case: Case) -> torch.Generator:
    """Decides which images are taken."""
    return seeded("cpu", "blocks", case.seed, case.split)
