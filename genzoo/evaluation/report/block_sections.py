"""Sections of an evaluation that set a model's figures beside others: classical baselines, classes, cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.random import seeded
from genzoo.data.pairs import PairedSplit
from genzoo.evaluation.baselines import codec_baselines, fitted_baselines
from genzoo.evaluation.cost import Cost, measure_cost
from genzoo.evaluation.generative_classifier import Classification, classify_split, log_prior
from genzoo.evaluation.likelihood import subset
from genzoo.evaluation.report.measuring import with_error
from genzoo.evaluation.report.sections import Case, Section

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.data.split import Split
    from genzoo.evaluation.likelihood import LikelihoodReport

FIT_IMAGES = 20_000  # training images, at most, that baselines are fitted on
CHOICE_IMAGES = 2000  # validation images, at most, that their sizes are chosen on
CODED_IMAGES = 1000  # images, at most, that codecs write: they are slow
CLASSIFIED_IMAGES = 1000  # images, at most, that are classified
CLASSIFIED_SECONDS = 120.0
DRAWN_IMAGES = 64  # that sampling is timed on

# --- baselines -----------------------------------------------------------------------------------------------


def baselines_section(case: Case) -> Section | None:
    """What classical methods and codecs say of the same images; None for real-valued data.

    Of a conditional model the baselines are still unconditional: they see images only.
    """
    spec, data = case.model.spec, case.data
    if spec.levels is None:
        return None
    train, val = (
        _images(data.split(name), most, seeded("cpu", "baselines", case.seed, name))
        for name, most in (("train", FIT_IMAGES), ("val", CHOICE_IMAGES))
    )
    evaluated = _images(data.split(case.split), case.max_images, _order(case))
    few = evaluated[torch.randperm(len(evaluated), generator=_order(case))[:CODED_IMAGES]]
    reports = {b.name: b.report(evaluated) for b in fitted_baselines(train, val, spec)}
    reports |= {b.name: b.report(few) for b in codec_baselines(spec)}
    content = {
        "test_id": case.name,
        "split": case.split,
        "seed": case.seed,
        "figures": {name: report.to_json() for name, report in reports.items()},
    }
    rows = {f"baseline: {name}": _bits_row(report) for name, report in reports.items()}
    return Section("baselines", case.name, content, rows)


def _bits_row(report: "LikelihoodReport") -> str:
    bits = with_error(report.bits_per_dim, report.bits_per_dim_stderr, 4)
    return f"{report.kind.symbol} {bits} bits/dim ({report.images} images)"


def _images(split: "Split", most: int | None, generator: torch.Generator) -> "Tensor":
    """All images of a split, or a random `most` of them, in the fixed draw; in memory."""
    chosen = subset(len(split), most, generator)
    return torch.cat([split.batch(part).images for part in chosen.split(1000)])


def _order(case: Case) -> torch.Generator:
    return seeded("cpu", "blocks", case.seed, case.split)


# --- classes -------------------------------------------------------------------------------------------------


def classification_section(case: Case) -> Section | None:
    """How well a class-conditional model with a likelihood classifies; None for all others.

    The prior of classes is that of the training labels; nothing is fitted on the images evaluated.
    """
    model, split = case.model, case.data.split(case.split)
    labelled = split.labels is not None and split.labels.ndim == 1
    if model.spec.cond != "class" or model.likelihood is LikelihoodKind.NONE or not labelled:
        return None
    most = min(case.max_images or CLASSIFIED_IMAGES, CLASSIFIED_IMAGES)
    order = torch.randperm(len(split), generator=_order(case))[:most]
    found = classify_split(
        model,
        split,
        order,
        prior=log_prior(case.data.train.labels, model.spec.cond_size),
        max_seconds=CLASSIFIED_SECONDS,
        generator=case.generator("classification"),
    )
    content = {"test_id": case.name, "split": case.split, "seed": case.seed, **found.to_json()}
    return Section("classification", case.name, content, classification_rows(found))


def classification_rows(found: Classification) -> dict[str, str]:
    """For a table."""
    kind = found.kind.name.lower().replace("_", " ")
    return {
        "accuracy": f"{with_error(found.accuracy, found.accuracy_stderr, 4)} "
        f"({found.images} images, {found.classes} classes, by {kind} likelihoods)",
        "-log p(class | image)": f"{with_error(found.nll, found.nll_stderr, 3)} nats",
        "calibration error": f"{found.calibration_error:.3f}, at a mean confidence of {found.confidence:.3f}",
    }


# --- cost ----------------------------------------------------------------------------------------------------


def cost_section(case: Case, run: Path, likelihood: "LikelihoodReport | None" = None) -> Section:
    """What training has cost, by the run folder, and what drawing and scoring cost here.

    `likelihood` is the measured one of this evaluation, whose speed is taken over; None for a family without.
    """
    split = case.data.split(case.split)
    images = min(DRAWN_IMAGES, len(split)) if case.model.spec.cond == "vector" else DRAWN_IMAGES
    cost = measure_cost(
        case.model,
        run,
        images=images,
        cond=_condition(case, split, images),
        likelihood=likelihood,
        generator=case.generator("cost"),
    )
    return Section("cost", case.name, {"seed": case.seed, **cost.to_json()}, cost_rows(cost))


def _condition(case: Case, split: "Split", images: int) -> "Tensor | None":
    """Vectors or input images to draw under; classes are drawn by the model itself."""
    if case.model.spec.cond != "vector" and not isinstance(split, PairedSplit):
        return None
    cond = split.batch(torch.arange(images)).cond
    return None if cond is None else cond.to(case.model.device)


def cost_rows(cost: Cost) -> dict[str, str]:
    """For a table; what is not known is left out."""
    machine = cost.machine
    rows = {
        **_training_rows(cost),
        "network calls": f"{cost.network_calls.most:,.0f} per sample",
        "sampling": f"{cost.sampling_images_per_second:,.1f} images/s ({cost.sampled_images} at once)",
    }
    if cost.likelihood_images_per_second is not None:
        rows["likelihood speed"] = f"{cost.likelihood_images_per_second:,.1f} images/s"
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads"
    return rows | {"measured on": f"{where}, {machine['device']}, torch {machine['torch']}"}


def _training_rows(cost: Cost) -> dict[str, str]:
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
