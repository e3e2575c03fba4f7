"""What samples are like: how good they are, whether they are copies, and of which classes."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from torch import Tensor
from typing_extensions import override

from genzoo.core.errors import GenzooError
from genzoo.data.captions import class_names
from genzoo.data.image_grid import save_grid
from genzoo.data.split import LazyImages, TensorSplit
from genzoo.evaluation.accuracy_score import class_figures
from genzoo.evaluation.copies_picture import neighbours_picture, save_neighbours
from genzoo.evaluation.report.case import Case
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.evaluated_samples import EvaluatedSamples
from genzoo.evaluation.report.picture_places import (
    BY_CLASS,
    JUDGED,
    MOST_CLASSES,
    NEIGHBOURS,
    PER_CLASS,
    TYPICAL,
    place_of,
)
from genzoo.evaluation.report.sample_schema import (
    ClassesResult,
    ExtractorFacts,
    MemorisationResult,
    QualityResult,
)
from genzoo.evaluation.report.section import Section
from genzoo.evaluation.typical_picture import scores
from genzoo.metrics.class_shares import by_class, class_shares
from genzoo.metrics.estimate import Estimate, display_name
from genzoo.metrics.memorisation import suspects
from genzoo.metrics.metric_registry import METRICS, collected
from genzoo.metrics.probes import Labelled

CLASSIFIED = 20_000  # real images, at most, that a classifier learns from or is compared with
SHOWN = 64
"""Samples in the picture of those that were evaluated."""
DECODINGS = {"draw": "draws", "mean": "means of the output distribution in place of draws"}
"""What samples are, in words."""
FEWEST = 4  # samples and real images that shares of classes take


@final
class QualitySection(Section):
    """How good samples are, by every metric of the registry."""

    name = "quality"
    of_samples = True

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, Case) and case.inquiry is not None

    @override
    def measure(self, case: Case) -> QualityResult:
        samples, start = case.samples, time.perf_counter()
        figures, missing = METRICS.figures(samples.sets)
        asked, unasked = _class_figures(case)
        picture = _drawn(
            case, JUDGED,
            lambda path: save_grid(samples.drawn.images[:SHOWN], case.model.spec, path, inside=case.out),
        )  # fmt: skip
        ranked = case.attempts("typicality", lambda: scores(samples.sets).rows())
        typical = ranked and _drawn(case, TYPICAL, lambda path: _save_rows(case, ranked[0], path))
        return QualityResult(
            case.name, **_about(case), figures={**figures, **asked}, missing={**missing, **unasked},
            references=len(samples.sets.real), seconds=samples.seconds + time.perf_counter() - start,
            picture=_text(picture), typical_picture=_text(typical), typicality=ranked[1] if ranked else (),
        )  # fmt: skip

    @override
    def rows(self, result: QualityResult) -> dict[str, str]:
        rows = {"feature extractor": f"{result.extractor.name} {result.extractor.identity}"}
        rows |= {"warning: feature extractor": result.remark} if result.remark else {}
        if result.typicality:
            rows["typicality of the best, median and worst"] = ", ".join(
                f"{t:.2f}" for t in result.typicality
            )
        counts = {"samples": _count_text(result), "decoding": DECODINGS[result.decode]}
        return rows | _rows(result.figures, result.missing) | counts

    @override
    def pictures(self, result: QualityResult) -> Sequence[str]:
        return [*_there(result.picture), *_there(result.typical_picture)]


@final
class MemorisationSection(Section):
    """Whether samples are copies of training images, with a picture of those that are nearest to one."""

    name = "memorisation"
    of_samples = True

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        return isinstance(case, Case) and case.inquiry is not None

    @override
    def measure(self, case: Case) -> MemorisationResult:
        samples = case.samples
        figures, missing = METRICS.figures(samples.sets, "memorisation")
        picture = _drawn(
            case, NEIGHBOURS,
            lambda path: save_neighbours(_nearest_pairs(samples), case.model.spec, path, inside=case.out),
        )  # fmt: skip
        return MemorisationResult(
            case.name, **_about(case), figures=figures, missing=missing,
            training_images=len(samples.sets.train), picture=_text(picture),
        )  # fmt: skip

    @override
    def rows(self, result: MemorisationResult) -> dict[str, str]:
        return _rows(result.figures, result.missing)

    @override
    def pictures(self, result: MemorisationResult) -> Sequence[str]:
        return _there(result.picture)


@final
class ClassesSection(Section):
    """The classes of samples of a model that takes none, of data that have some, with a picture of some of each."""

    name = "classes"
    of_samples = True

    @override
    def applies(self, case: Case | EncoderCase) -> bool:
        if not isinstance(case, Case) or case.inquiry is None or case.model.spec.cond is not None:
            return False
        labels, sets = case.data.train.labels, case.samples.sets
        enough = min(map(len, (sets.samples, sets.real, sets.stand_in))) >= FEWEST
        return labels is not None and labels.ndim == 1 and enough

    @override
    def measure(self, case: Case) -> ClassesResult:
        samples, train = case.samples, case.samples.images.train
        labels, sets = train.split.labels, samples.sets
        assert labels is not None
        bank = Labelled(sets.train.float(), labels[train.places].long())
        shares = class_shares(
            bank, sets.samples, sets.real, sets.stand_in, generator=sets.generator("class shares")
        )

        def draw(path: Path) -> None:
            shown = by_class(samples.drawn.images, shares.found, min(bank.classes, MOST_CLASSES), PER_CLASS)
            save_grid(shown.flatten(0, 1), case.model.spec, path, columns=PER_CLASS, inside=case.out)

        picture = _drawn(case, BY_CLASS, draw)
        named = shares.share_figures(_names(case, bank.classes))
        return ClassesResult(case.name, shares.shift, named, case.seed, _text(picture), case.decode)

    @override
    def rows(self, result: ClassesResult) -> dict[str, str]:
        return {"class distribution shift (TV)": str(result.shift)}

    @override
    def pictures(self, result: ClassesResult) -> Sequence[str]:
        return _there(result.picture)


# --- what they share -------------------------------------------------------------------------------------------


def _about(case: Case) -> dict[str, Any]:
    """What figures must be read with."""
    space, drawn = case.samples.space, case.samples.drawn
    return {
        "extractor": ExtractorFacts(space.name, space.identity, space.width, space.scale),
        "samples": len(drawn.images), "asked": drawn.asked, "conditions": drawn.conditions, "seed": case.seed,
        "sampling_seconds": drawn.seconds, "remark": case.samples.remark, "decode": case.decode,
    }  # fmt: skip


def _class_figures(case: Case) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Of samples that were asked to be of a class: whether they are, and whether they teach it."""
    drawn, images = case.samples.drawn, case.samples.images
    if drawn.classes is None:
        return {}, {}
    samples = TensorSplit(drawn.images, drawn.classes)
    real, train = (part.with_classes(CLASSIFIED) for part in (images.evaluated, images.train))
    return collected({
        "class_accuracy": lambda: class_figures(samples, real, train, case.model.spec, seed=case.seed)
    })  # fmt: skip


def _count_text(result: QualityResult) -> str:
    cut = "" if result.samples == result.asked else f" of {result.asked:,} (time was up)"
    given = "" if result.conditions == "none" else f", given {result.conditions}"
    return f"{result.samples:,}{cut} against {result.references or 0:,} images{given}"


def _rows(figures: Mapping[str, Estimate], missing: Mapping[str, str]) -> dict[str, str]:
    rows = {display_name(name): str(figure) for name, figure in figures.items()}
    return rows | {display_name(name): f"none: {reason}" for name, reason in missing.items()}


def _drawn(case: Case, name: str, draw: Callable[[Path], object]) -> Path | None:
    """Where the picture called `name` went; None where nobody wants one, or it cannot be drawn."""
    path = _path(case, name)

    def work(path: Path) -> Path:
        draw(path)
        return path

    return None if path is None else case.attempts(f"picture {name}", lambda: work(path))


def _path(case: Case, name: Path) -> Path | None:
    """Where a picture goes; None where nobody wants one."""
    return None if case.out is None else case.out / place_of(name, case.decode)


def _save_rows(case: Case, places: Tensor, path: Path) -> None:
    """The samples at `places` long `[rows, k]`, row by row."""
    images = case.samples.drawn.images[places.flatten()]
    save_grid(images, case.model.spec, path, columns=places.shape[1], inside=case.out)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _there(picture: str | None) -> Sequence[str]:
    return () if picture is None else (picture,)


def _names(case: Case, classes: int) -> Sequence[str]:
    """Of classes; their numbers where they have no names, and nothing for too many to be told one by one."""
    if classes > MOST_CLASSES:
        return ()
    try:
        return class_names(case.data)
    except GenzooError:
        return [str(c) for c in range(classes)]


def _nearest_pairs(samples: EvaluatedSamples) -> Tensor:
    """The samples nearest to a training image, for where it lies, each with that image: `[n, 2, c, h, w]`."""
    drawn, train, sets = samples.drawn, samples.images.train, samples.sets
    images = LazyImages(
        lambda places: train.split.batch(train.places[places]).images, (len(train), *drawn.images.shape[1:])
    )
    return neighbours_picture(drawn.images, images, suspects(sets.train, sets.samples))
