"""The likelihood of "generator plus observation noise", for models without one of their own."""

from typing import final

from typing_extensions import override

from genzoo.core.errors import GenzooError
from genzoo.evaluation.ais import ais_likelihood
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.likelihood_section import kind_name, likelihood_figures
from genzoo.evaluation.report.plain_json import finite
from genzoo.evaluation.report.schema import AISResult
from genzoo.evaluation.report.section import Section, with_error
from genzoo.objectives.likelihood.decoder import Decoder


@final
class AISSection(Section):
    """For models that generate from latents; it stands in a table of its own."""

    name = "ais"
    table = "its generator plus noise"

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, Case) and case.ais is not None

    @override
    def measure(self, case: Case) -> AISResult:
        assert case.ais is not None
        model = check_generates(case.model)
        report = ais_likelihood(
            model, case.data.split(case.split), case.data.val, images=case.ais.images,
            annealing=case.ais.annealing, generator=case.generator("ais"),
        )  # fmt: skip
        scale, gap = report.details["scale"], report.details["bdmc_gap"]
        figures, details = likelihood_figures(report), finite(report.details)
        return AISResult(case.name, *figures, kind_name(report), report.images, scale, gap, details)

    @override
    def rows(self, result: AISResult) -> dict[str, str]:
        bits, nats = result.bits_per_dim, result.nats
        return {
            "bits/dim": f"{result.symbol} {with_error(bits.value, bits.stderr, 3)}",
            "nats/image": f"{result.symbol} {with_error(-nats.value, nats.stderr, 2)}",
            "what is evaluated": "the generator plus discretised noise, which is another model than the generator",
            "noise": f"standard deviation {result.scale:g} where images range over 2, chosen on validation images",
            "gap (BDMC)": f"{result.bdmc_gap:.2f} nats on simulated images",
            "images": f"{result.images}",
        }


def check_generates(model: object) -> Decoder:
    """The model, which generates from latents; raises `GenzooError` for any other."""
    if not isinstance(model, Decoder):
        raise GenzooError("--ais is for models that generate from latents, such as gan; leave it out")
    return model
