"""How near predictions from input images come to the truth, and how sharp they are."""

from dataclasses import replace
from typing import Any, final

from typing_extensions import override

from genzoo.data.pairs import PairedSplit
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.sample_schema import InputDistances, TranslationResult
from genzoo.evaluation.report.section import Section, with_error
from genzoo.evaluation.translation import translation_figures
from genzoo.metrics.estimate import Estimate
from genzoo.metrics.intervals import mean_estimate

TRANSLATED = 2000  # images, at most, that predictions are made for


@final
class TranslationSection(Section):
    """For data with input images."""

    name = "translation"

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, Case) and isinstance(case.data.split(case.split), PairedSplit)

    @override
    def measure(self, case: Case) -> TranslationResult:
        figures = translation_figures(
            case.model, case.data.split(case.split), max_images=case.max_images or TRANSLATED,
            generator=case.generator("translation"),
        )  # fmt: skip
        return replace(translation_result(case.name, figures), decode=case.decode)

    @override
    def rows(self, result: TranslationResult) -> dict[str, str]:
        inputs = result.inputs

        def row(figure: Estimate, digits: int, of_inputs: float | None, unit: str = "") -> str:
            text = with_error(figure.value, figure.stderr, digits) + unit
            return text + (f" (the inputs: {of_inputs:.{digits}f})" if of_inputs else "")

        rows = {
            "L1": row(result.l1, 4, inputs and inputs.l1),
            "PSNR": row(result.psnr, 2, inputs and inputs.psnr, " dB"),
        }
        if result.sharpness is not None:
            of_inputs = inputs and inputs.sharpness
            rows["sharpness"] = row(result.sharpness, 2, of_inputs, " of that of the truth")
        rows |= {f"Fréchet, {space}": f"{figure.value:.3f}" for space, figure in result.frechet.items()}
        return rows | {"predictions": f"{result.images} images"}


def translation_result(test_id: str, found: dict[str, Any]) -> TranslationResult:
    """What `translation_figures` has found as reports hold it."""
    images, doing_nothing = found["images"], found.get("input")

    def figure(name: str, better: bool | None) -> Estimate:
        return mean_estimate(found[name], found.get(f"{name}_stderr"), images, higher_is_better=better)

    return TranslationResult(
        test_id, figure("l1", False), figure("psnr", True),
        None if found["sharpness"] is None else figure("sharpness", None),
        {space: Estimate(value, images, images) for space, value in found["frechet"].items()}, images,
        None if doing_nothing is None
        else InputDistances(*(doing_nothing[key] for key in ("l1", "psnr", "sharpness", "frechet"))),
    )  # fmt: skip
