"""How likely a model finds the images, and how much likelier it finds training images."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

from typing_extensions import override

from genzoo.core.errors import NoLikelihood
from genzoo.evaluation.likelihood import LikelihoodReport
from genzoo.evaluation.report.case import Case, measure
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.plain_json import finite
from genzoo.evaluation.report.schema import GeneralisationGap, KindName, LikelihoodResult
from genzoo.evaluation.report.section import Section, with_error
from genzoo.metrics.estimate import Estimate
from genzoo.metrics.intervals import mean_estimate

GAP_IMAGES = 1000  # training images, at most, that the generalisation gap is measured on


@final
class LikelihoodSection(Section):
    """The likelihood of the images; with `gap` also how much better that of training images is."""

    name = "likelihood"

    def __init__(self, *, gap: bool = True) -> None:
        self.gap = gap

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, Case)

    @override
    def measure(self, case: Case) -> LikelihoodResult:
        report = case.likelihood_report()
        facts = {
            "split": case.split, "seed": case.seed, "protocol": finite(case.data.protocol),
            "parameters": sum(p.numel() for p in case.model.parameters()),
        }  # fmt: skip
        with_gap = self.gap and case.split != "train"
        return likelihood_result(
            case.name, report, gap=generalisation_gap(case, report) if with_gap else None, **facts
        )

    @override
    def rows(self, result: LikelihoodResult) -> dict[str, str]:
        rows = likelihood_rows(result)
        if result.gap is not None:
            gap = result.gap.bits_per_dim
            text = f"{with_error(gap.value, gap.stderr, 4)} bits/dim ({result.gap.train_images} train images)"
            rows["generalisation gap"] = text
        if self.gap:
            rows |= {} if result.parameters is None else {"parameters": f"{result.parameters:,}"}
            speed = result.images_per_second
            rows |= {} if speed is None else {"speed": f"{speed:.1f} images/s"}
        return rows


def likelihood_result(test_id: str, report: LikelihoodReport, **facts: Any) -> LikelihoodResult:
    """A measured likelihood as reports hold it. Raises `NoLikelihood` where an image has probability 0."""
    return LikelihoodResult(
        test_id, *likelihood_figures(report), kind_name(report), report.images,
        images_per_second=report.images_per_second, details=finite(report.details), **facts,
    )  # fmt: skip


def likelihood_figures(report: LikelihoodReport) -> tuple[Estimate, Estimate]:
    """Bits/dim and nats. Raises `NoLikelihood` where they are not finite."""
    if not math.isfinite(report.nats):
        raise NoLikelihood(
            f"the mean log-likelihood is {report.nats:g}: the model finds some image impossible, or has NaN weights"
        )
    return (
        mean_estimate(report.bits_per_dim, report.bits_per_dim_stderr, report.images),
        mean_estimate(report.nats, report.nats_stderr, report.images, higher_is_better=True),
    )


def kind_name(report: LikelihoodReport) -> KindName:
    """Of a likelihood that there is."""
    name = report.kind.name
    assert name != "NONE"
    return name  # pyright: ignore[reportReturnType]


def generalisation_gap(case: Case, held_out: LikelihoodReport) -> GeneralisationGap | None:
    """How many bits/dim worse the held-out images are than training images.

    No more training images are measured than held-out ones, so that it takes no longer than these did. None where some
    training image is impossible.
    """
    most = min(GAP_IMAGES, held_out.images)
    return gap_between(held_out, measure(case.model, case.data, "train", seed=case.seed, max_images=most))


def gap_between(held_out: LikelihoodReport, train: LikelihoodReport) -> GeneralisationGap | None:
    """The gap of two independent sets of images, with the error of the difference of their means."""
    if not math.isfinite(train.nats):
        return None
    errors = (train.bits_per_dim_stderr, held_out.bits_per_dim_stderr)
    stderr = None if None in errors else sum(e**2 for e in errors if e is not None) ** 0.5
    gap = held_out.bits_per_dim - train.bits_per_dim
    figure = mean_estimate(gap, stderr, min(held_out.images, train.images), higher_is_better=None)
    return GeneralisationGap(replace(figure, references=held_out.images), train.images, train.bits_per_dim)


def likelihood_rows(result: LikelihoodResult) -> dict[str, str]:
    """The rows that tell a likelihood with its relation to the truth and its standard error."""
    split, symbol = result.split or "test", result.symbol
    sizes = result.protocol.get("sizes")
    size = sizes.get(split) if isinstance(sizes, Mapping) else None
    part = "" if size is None or result.images == size else f" of {size}"
    bits = with_error(result.bits_per_dim.value, result.bits_per_dim.stderr, 4)
    nats = with_error(-result.nats.value, result.nats.stderr, 2)
    return {
        f"{split} bits/dim": f"{symbol} {bits}",
        f"{split} nats/image": f"{symbol} {nats}",
        "kind": result.kind.lower().replace("_", " "),
        f"{split} set": f"{result.test_id} ({result.images}{part} images)",
    }
