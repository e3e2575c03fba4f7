"""What training has cost, by the run folder, and what drawing and scoring cost here."""

from typing import TYPE_CHECKING, Any, final

import torch
from typing_extensions import override

from genzoo.data.pairs import PairedSplit
from genzoo.evaluation.cost import Cost, measure_cost
from genzoo.evaluation.likelihood import LikelihoodReport
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.schema import CostResult
from genzoo.evaluation.report.section import Section
from genzoo.models.base import decoded
from genzoo.objectives.decoding import Decoding

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.data.split import Split

DRAWN_IMAGES = 64  # that sampling is timed on


@final
class CostSection(Section):
    """The speed of likelihoods is that of the likelihood that this evaluation has measured, where there is one."""

    name = "cost"

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, Case)

    @override
    def measure(self, case: Case) -> CostResult:
        split, measured = case.data.split(case.split), case.measured
        images = min(DRAWN_IMAGES, len(split)) if case.model.spec.cond == "vector" else DRAWN_IMAGES
        with decoded(case.model, Decoding.DRAW):  # whatever samples are evaluated
            cost = measure_cost(
                case.model, case.run, images=images, cond=_condition(case, split, images),
                likelihood=measured if isinstance(measured, LikelihoodReport) else None,
                generator=case.generator("cost"),
            )  # fmt: skip
        return CostResult(case.name, cost, case.seed)

    @override
    def rows(self, result: CostResult) -> dict[str, str]:
        cost = result.cost
        rows = {
            **_training_rows(cost),
            "network calls": f"{cost.network_calls.most:,.0f} per sample",
            "sampling": f"{cost.sampling_images_per_second:,.1f} images/s ({cost.sampled_images} at once)",
        }
        if cost.likelihood_images_per_second is not None:
            rows["likelihood speed"] = f"{cost.likelihood_images_per_second:,.1f} images/s"
        named = {
            key: cost.machine.get(key, "unknown")
            for key in ("processor", "cores", "threads", "device", "torch")
        }
        where = "{processor}, {cores} cores, {threads} threads, {device}, torch {torch}".format(**named)
        return rows | {"measured on": where}


def _condition(case: Case, split: "Split", images: int) -> "Tensor | None":
    """Vectors or input images to draw under; classes are drawn by the model itself."""
    if case.model.spec.cond != "vector" and not isinstance(split, PairedSplit):
        return None
    cond = split.batch(torch.arange(images)).cond
    return None if cond is None else cond.to(case.model.device)


def _training_rows(cost: Cost) -> dict[str, str]:
    """What is not known is left out."""
    trained = cost.training
    if trained is None or trained.seconds is None:
        return {}
    parts: list[tuple[Any, str]] = [
        (trained.images_seen, "{:,} images"),
        (trained.epochs, "{:.2f} epochs"),
        (trained.seconds, "{:,.0f} s"),
        (trained.cpu_seconds, "{:,.0f} CPU-seconds"),
        (trained.peak_memory_mib, "{:,.0f} MiB at most"),
    ]
    return {"training": ", ".join(text.format(value) for value, text in parts if value is not None)}
