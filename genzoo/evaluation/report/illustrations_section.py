"""Pictures of the model at work."""

from collections.abc import Sequence
from typing import final

from typing_extensions import override

from genzoo.evaluation.illustrations import illustrate
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.schema import IllustrationsResult
from genzoo.evaluation.report.section import Section


@final
class IllustrationsSection(Section):
    """Where there is a folder for them, and the model has any to show."""

    name = "illustrations"
    of_samples = True

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, Case) and case.out is not None

    @override
    def measure(self, case: Case) -> IllustrationsResult | None:
        assert case.out is not None
        split, generator = case.data.split(case.split), case.generator("illustrations")
        pictures = illustrate(case.model, split, case.out, generator=generator)
        return IllustrationsResult(case.name, tuple(map(str, pictures))) if pictures else None

    @override
    def pictures(self, result: IllustrationsResult) -> Sequence[str]:
        return result.pictures
