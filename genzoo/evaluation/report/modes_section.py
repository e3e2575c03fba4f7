"""Which modes of the data samples hit, of models that say nothing of the images they leave out."""

import math
from dataclasses import replace
from typing import final

from typing_extensions import override

from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.sample_schema import ModesResult
from genzoo.evaluation.report.section import Section
from genzoo.metrics.estimate import Estimate
from genzoo.metrics.modes import Coverage, Modes
from genzoo.models.base import counts_modes
from genzoo.models.monitors import MODE_SAMPLES, count_modes


@final
class ModesSection(Section):
    """A collapse is called one."""

    name = "modes"

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, Case) and counts_modes(case.model)

    @override
    def measure(self, case: Case) -> ModesResult:
        found = count_modes(case.model, Modes.of(case.data.train, seed=case.seed), case.generator("modes"))
        return replace(modes_result(case.name, found, MODE_SAMPLES), decode=case.decode)

    @override
    def rows(self, result: ModesResult) -> dict[str, str]:
        away = math.inf if result.divergence is None else result.divergence.value
        rows = {
            "modes": f"{result.covered.value:.0f} of {result.modes} covered, KL {away:.3f} nats from the data's shares",
            "dispersion of samples": "none: the data do not vary"
            if result.spread is None
            else f"{result.spread.value:.2f} of that of the data",
        }
        return rows | (
            {"health": "COLLAPSED: the samples are alike or miss most modes"} if result.collapsed else {}
        )


def modes_result(test_id: str, found: Coverage, samples: int) -> ModesResult:
    """What was found as reports hold it."""

    def figure(value: float, better: bool | None) -> Estimate:
        return Estimate(value, samples, 0, higher_is_better=better)

    far = figure(found.divergence, False) if math.isfinite(found.divergence) else None
    spread = None if found.dispersion is None else figure(found.dispersion, None)
    return ModesResult(
        test_id, figure(found.covered, True), far, spread, found.modes, samples, found.collapsed
    )
