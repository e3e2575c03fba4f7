"""What the latents of a model hold, in figures and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, final

from typing_extensions import override

from genzoo.evaluation.latents import LatentVariableModel, PicturedLatents, draw_latents, latent_figures
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.plain_json import finite
from genzoo.evaluation.report.schema import LatentsResult
from genzoo.evaluation.report.section import Section
from genzoo.metrics.estimate import Estimate

BETTER: Mapping[str, bool | None] = {
    "rate": None, "distortion": False, "codebook_usage": None, "codebook_perplexity": None
}  # fmt: skip
"""Figures, and which end of them is better."""


@final
class LatentsSection(Section):
    """For a model with latents and a likelihood."""

    name = "latents"

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, Case) and isinstance(case.model, LatentVariableModel) and case.has_likelihood

    @override
    def measure(self, case: Case) -> LatentsResult:
        model, split, generator = case.model, case.data.split(case.split), case.generator("latents")
        assert isinstance(model, LatentVariableModel)
        likelihood = case.likelihood_report()
        figures = latent_figures(model, split, likelihood, generator=generator)
        pictures: list[Path] = []
        if case.out is not None and isinstance(model, PicturedLatents):
            out = case.out
            drawn = case.attempts(
                "pictures of latents", lambda: draw_latents(model, split, out, generator=generator)
            )
            pictures = drawn or []
        return latents_result(case.name, figures, [str(path) for path in pictures], likelihood.images)

    @override
    def rows(self, result: LatentsResult) -> dict[str, str]:
        rows = {}
        if result.rate is not None and result.distortion is not None:
            rows["rate + distortion"] = f"{result.rate.value:.2f} + {result.distortion.value:.2f} nats (ELBO)"
        if result.active_units is not None:
            rows["active latents"] = _active_text(result)
        if result.kl_per_group is not None:
            rows["KL per group"] = ", ".join(f"{kl:.2f}" for kl in result.kl_per_group) + " nats"
        if result.codebook_usage is not None and result.codebook_perplexity is not None:
            share, effective = result.codebook_usage.value, result.codebook_perplexity.value
            rows["codes in use"] = f"{share:.1%} of {result.codes} (perplexity {effective:.0f})"
        return rows

    @override
    def pictures(self, result: LatentsResult) -> Sequence[str]:
        return result.pictures


def _active_text(result: LatentsResult) -> str:
    """With the definition, and what the latents carry together, which may be next to nothing."""
    carried = "" if result.rate is None else f"; all carry {result.rate.value:.2f} nats together"
    return f"{result.active_units} of {result.latents} (Var E[z|x] > 0.01{carried})"


def latents_result(
    test_id: str, found: Mapping[str, Any], pictures: Sequence[str], likelihood_images: int
) -> LatentsResult:
    """What a model tells of its latents as reports hold it; what is unknown to them is kept as it is.

    Rate and distortion are parts of the likelihood, and so are those of its images.
    """
    images, known = found["images"], {field.name for field in fields(LatentsResult)} - {"more"}
    figures: dict[str, Any] = {
        name: Estimate(
            found[name],
            0,
            likelihood_images if name in ("rate", "distortion") else images,
            higher_is_better=better,
        )
        for name, better in BETTER.items()
        if found.get(name) is not None
    }
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, (list, tuple)) else value
        for name, value in found.items()
        if name in known and name not in BETTER
    }
    more = {name: value for name, value in found.items() if name not in known}
    return LatentsResult(test_id, **plain, **figures, more=finite(more), pictures=tuple(pictures))
