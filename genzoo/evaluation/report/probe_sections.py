"""What an encoder's vectors are good for, how they fill their space, and a map of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import nn
from typing_extensions import override

from genzoo.core.errors import GenzooError
from genzoo.core.random import seeded
from genzoo.data.augmentations import Augmentation, MultiCrop
from genzoo.evaluation.embedding_map import FEWEST_POINTS, save_embedding_map
from genzoo.evaluation.fine_tuning import fine_tune
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.encoder_case import CHUNK, EncoderCase, classes_of, labels_at
from genzoo.evaluation.report.encoder_schema import FineTuningResult, MapResult, ProbesResult, SpaceResult
from genzoo.evaluation.report.picture_places import MAP
from genzoo.evaluation.report.plain_json import finite
from genzoo.evaluation.report.section import Section
from genzoo.metrics.estimate import Estimate
from genzoo.metrics.intervals import share_estimate
from genzoo.metrics.probes import (
    NEIGHBOURS,
    Collapse,
    Labelled,
    Share,
    accuracy,
    alignment,
    few_shot_accuracy,
    knn_accuracy,
    linear_probe,
    uniformity,
)
from genzoo.objectives.scale import Scale

EXAMPLES, DRAWS = 10, 20  # held-out images per class, at most, and how often they are chosen anew
PAIRS = 1000  # images whose views are compared
SPREAD_IMAGES = 5000  # images whose pairs are all compared
COLLAPSED = "YES: its vectors lie (nearly) in a point or on a line, so all images look alike to it"


# --- probes ----------------------------------------------------------------------------------------------------


@final
class ProbesSection(Section):
    """Nearest neighbours, average similarity to a few held-out examples, and a linear probe."""

    name = "probes"

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, EncoderCase) and case.labelled

    @override
    def measure(self, case: EncoderCase) -> ProbesResult:
        bank, held, queries = case.parts
        counts = torch.bincount(held.labels)
        examples = min(EXAMPLES, int(counts[counts > 0].min()))
        found = probe(bank, held, queries, examples=examples, seed=case.seed)
        n = len(queries)
        return ProbesResult(
            case.name, share_figure(found.knn, n), share_figure(found.few_shot, n), share_figure(found.linear, n),
            NEIGHBOURS, examples, DRAWS, found.strength, found.validation, n, len(bank), len(held), case.split,
            case.seed, finite(case.data.protocol),
        )  # fmt: skip

    @override
    def rows(self, result: ProbesResult) -> dict[str, str]:
        few = f"similarity to {result.examples} per class"
        return {
            f"{result.neighbours} nearest neighbours": percent(result.knn),
            few: f"{percent(result.few_shot)} ({result.draws} draws)",
            "linear probe": f"{percent(result.linear)} (C = {result.strength:g})",
            f"{result.split} set": _set_text(result),
        }


def _set_text(result: ProbesResult) -> str:
    sizes = result.protocol.get("sizes")
    size = sizes.get(result.split) if isinstance(sizes, Mapping) else None
    part = "" if size is None or result.images == size else f" of {size}"
    return f"{result.test_id} ({result.images}{part} images, {result.train_images} to learn from)"


def share_figure(share: Share, images: int) -> Estimate:
    """An accuracy over so many images as reports hold it: for this encoder, and the images that it was given."""
    return share_estimate(share.value, images, stderr=share.stderr)


def percent(share: Estimate) -> str:
    """An accuracy with its interval.

    >>> percent(Estimate(0.9712, 0, 400, low=0.9499, high=0.9836)), percent(Estimate(1.0, 0, 4))
    ('97.1% [95.0, 98.4]', '100.0%')
    """
    text = f"{100 * share.value:.1f}%"
    if share.low is None or share.high is None:
        return text
    return f"{text} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


@dataclass(frozen=True)
class ProbeFigures:
    """The three probes of frozen vectors; `strength` is the linear probe's C, chosen by its `validation` accuracy."""

    knn: Share
    few_shot: Share
    examples: int
    draws: int
    linear: Share
    strength: float
    validation: float


def probe(bank: Labelled, held: Labelled, queries: Labelled, *, examples: int, seed: int = 0) -> ProbeFigures:
    """Classifies `queries` by training vectors `bank` and by `held`, which choices are made on and examples come from.

    The `seed` decides the examples. Raises `GenzooError` where a class has fewer held-out images than `examples`.
    """
    linear, generator = linear_probe(bank, held, queries), seeded("cpu", "few-shot", seed)
    few_shot = few_shot_accuracy(held, queries, examples=examples, draws=DRAWS, generator=generator)
    return ProbeFigures(
        knn=knn_accuracy(bank, queries), few_shot=few_shot, examples=examples, draws=DRAWS,
        linear=linear.share, strength=linear.strength, validation=linear.validation,
    )  # fmt: skip


@final
class FineTuningSection(Section):
    """How good a classifier the backbone becomes when it is trained on, on all training images."""

    name = "fine_tuning"

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, EncoderCase) and case.fine_tuning is not None

    @override
    def measure(self, case: EncoderCase) -> FineTuningResult:
        encoder, how = case.encoder, case.fine_tuning
        assert how is not None
        backbone = check_fine_tunes(case)
        model = fine_tune(
            backbone, encoder.width, case.data.train, encoder.spec, how, generator=case.generator("fine-tuning")
        )  # fmt: skip
        predicted = [model.predict(case.evaluated.batch(part).images) for part in case.chosen.split(CHUNK)]
        share = accuracy(torch.cat(predicted), labels_at(case.evaluated, case.chosen))
        figure, images = share_figure(share, len(case.chosen)), len(case.chosen)
        return FineTuningResult(case.name, figure, images, how.steps, how.batch_size, how.learning_rate)

    @override
    def rows(self, result: FineTuningResult) -> dict[str, str]:
        return {f"fine-tuned, {result.steps} steps": percent(result.accuracy)}


def check_fine_tunes(case: EncoderCase) -> nn.Module:
    """What is trained on; raises `GenzooError` for an encoder without a backbone, and for images without classes."""
    backbone = getattr(case.encoder, "backbone", None)
    if not isinstance(backbone, nn.Module) or not case.labelled:
        raise GenzooError(
            "--fine-tune needs an encoder with a backbone and images with classes; leave it out"
        )
    return backbone


# --- the space -------------------------------------------------------------------------------------------------


@final
class SpaceSection(Section):
    """Effective rank, dispersion, uniformity and alignment; says so where the encoder has collapsed."""

    name = "space"

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, EncoderCase)

    @override
    def measure(self, case: EncoderCase) -> SpaceResult:
        vectors = case.queries
        collapse, few = Collapse.of(vectors), vectors[:SPREAD_IMAGES]

        views, classes = view_alignment(case), class_alignment(case)

        def figure(value: float, better: bool | None = False) -> Estimate:
            return Estimate(value, 0, len(vectors), higher_is_better=better)

        return SpaceResult(
            case.name, figure(collapse.effective_rank, None), figure(collapse.dispersion, None),
            figure(uniformity(few)),
            None if views is None else figure(views), None if classes is None else figure(classes),
            collapse.std, collapse.least_std, collapse.width, len(vectors), collapse.collapsed,
        )  # fmt: skip

    @override
    def rows(self, result: SpaceResult) -> dict[str, str]:
        rows = {
            "effective rank": f"{result.effective_rank.value:.1f} of {result.width}",
            "deviation per dimension": f"{result.std:.3g} on average, {result.least_std:.2g} at least",
            "spread": f"{result.spread.value:.3f}",
            "uniformity": f"{result.uniformity.value:.2f}",
        }
        kinds = {"views": result.alignment, "images of a class": result.class_alignment}
        told = [f"{figure.value:.3f} ({kind})" for kind, figure in kinds.items() if figure is not None]
        if told:
            rows["alignment"] = ", ".join(told)
        rows["collapsed"] = COLLAPSED if result.collapsed else "no"
        return rows


def view_alignment(case: EncoderCase) -> float | None:
    """The mean squared distance of two views of an image, as unit vectors; None where views have another size.

    Views are rounded to the integer images that an encoder takes.
    """
    spec, augmentation = case.encoder.spec, getattr(case.encoder.config, "augmentation", None)
    augmentation = augmentation.large if isinstance(augmentation, MultiCrop) else augmentation
    if not isinstance(augmentation, Augmentation):
        return None
    scale, generator = Scale(spec), case.generator("views")
    x = scale.centres(case.evaluated.batch(case.chosen[:PAIRS]).images)
    views = [augmentation(x, generator) for _ in range(2)]
    if any(view.shape != x.shape for view in views):
        return None
    return alignment(
        *(case.encoder.embed(scale.images(view).to(case.encoder.device)).cpu() for view in views)
    )


def class_alignment(case: EncoderCase) -> float | None:
    """The mean squared distance of two images of one class, as unit vectors; None where there are no classes.

    Every image is paired with another of its class; those that are alone in it are left out.
    """
    if not case.labelled:
        return None
    labels = labels_at(case.evaluated, case.chosen)
    order = torch.randperm(len(labels), generator=case.generator("pairs"))
    order = order[labels[order].sort(stable=True).indices]  # class by class, in random order
    first, second = order[:-1], order[1:]
    same = labels[first] == labels[second]
    return alignment(case.queries[first[same]], case.queries[second[same]]) if bool(same.any()) else None


@final
class MapSection(Section):
    """A picture of the evaluated images' vectors in the plane, where there is a folder for it."""

    name = "map"

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, EncoderCase) and case.out is not None and len(case.queries) >= FEWEST_POINTS

    @override
    def measure(self, case: EncoderCase) -> MapResult:
        assert case.out is not None
        labels, path = classes_of(case.evaluated), case.out / MAP
        chosen = None if labels is None else labels[case.chosen]
        save_embedding_map(
            case.queries, chosen, path, title=case.name, generator=case.generator("map"), inside=case.out
        )
        return MapResult(case.name, str(path))

    @override
    def pictures(self, result: MapResult) -> Sequence[str]:
        return (result.picture,)
