"""The sections of an evaluation that look at samples: how good they are, and whether they are copies.

In the manner of `genzoo.evaluation.report.sections`. Samples are drawn once and seen in the features of one extractor,
which had no part in making them; evaluated against the split's images, and against training images in the same number,
which a model that copies comes nearer to.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genzoo.core.errors import GenzooError
from genzoo.core.progress_bar import progress_bar
from genzoo.core.random import seeded
from genzoo.data.captions import class_names
from genzoo.data.image_grid import save_grid
from genzoo.data.split import LazyImages, TensorSplit
from genzoo.evaluation.accuracy_score import class_figures
from genzoo.evaluation.copies_picture import neighbours_picture, save_neighbours
from genzoo.evaluation.drawing import Drawn, draw_for
from genzoo.evaluation.features.extractor import Extractor, refuse_conditioning_encoder
from genzoo.evaluation.features.feature_space import CHUNK, FeatureSpace
from genzoo.evaluation.likelihood import subset
from genzoo.evaluation.report.report_file import BY_CLASS, JUDGED, MOST_CLASSES, PER_CLASS
from genzoo.evaluation.report.sections import Case, Section
from genzoo.metrics.class_shares import by_class, class_shares
from genzoo.metrics.estimate import Estimate, display_name
from genzoo.metrics.memorisation import suspects
from genzoo.metrics.probes import Labelled
from genzoo.metrics.quality import FeatureSets, collected, memorisation_figures, quality_figures

if TYPE_CHECKING:
    from genzoo.data.split import Split

SAMPLES = 2000
SECONDS = 300.0
"""For drawing; what takes longer ends with the samples there are by then."""
REFERENCES = 10_000  # images, at most, that samples are compared with
TRAINING_IMAGES = 60_000  # training images, at most, that copies are looked for among
CLASSIFIED = 20_000  # real images, at most, that a classifier learns from or is compared with
PICTURE = Path("samples") / "nearest-neighbours.png"
SHOWN = 64
"""Samples in the picture of those that were evaluated."""


@dataclass(frozen=True)
class Inquiry:
    """The feature extractor, and how many samples; None: as many as there are images, at most `SAMPLES`."""

    extractor: Extractor
    samples: int | None = None
    max_seconds: float = SECONDS


def quality_sections(case: Case, inquiry: Inquiry, run: Path) -> list[Section]:
    """Quality and memorisation of samples of the model in the folder `run`, where the pictures go.

    Also the classes of samples for which none was asked, where the data have any. Raises `GenzooError` where the
    feature extractor took part in making the model or cannot see these images, and where there are fewer than two
    samples or images.
    """
    _check(case)
    start = time.perf_counter()
    remark = inquiry.extractor.remark(case.data, case.split)
    space = inquiry.extractor.make(case.data)
    refuse_conditioning_encoder(space, run)
    images = _real_images(case)
    asked = min(SAMPLES, len(images.evaluated)) if inquiry.samples is None else inquiry.samples
    with progress_bar("samples", asked) as progress:
        drawn = draw_for(
            case.model, case.data, case.split, asked, seed=case.seed, max_seconds=inquiry.max_seconds,
            progress=progress,
        )  # fmt: skip
    sets = _feature_sets(case, space, drawn, images)
    about = {**_about(space, drawn, case.seed), "remark": remark}
    shown = _nearest_pairs(drawn, sets, images.train)
    memorisation = _memorisation_section(case, sets, shown, run / PICTURE, about)
    figures, missing = quality_figures(sets)
    classes, unasked = _class_figures(case, drawn, images)
    found = figures | classes, missing | unasked
    save_grid(drawn.images[:SHOWN], case.model.spec, run / JUDGED)
    quality = _quality_section(case, *found, about, len(sets.real), start, run / JUDGED)
    classes = _classes_section(case, drawn, sets, images.train, run / BY_CLASS)
    return [quality, memorisation, *([] if classes is None else [classes])]


def _check(case: Case) -> None:
    if case.model.spec.levels is None:
        raise GenzooError("samples are evaluated as images, these data are real-valued: pass --samples 0")
    if case.split == "train":
        raise GenzooError(
            "samples are compared with images that nothing was trained on: take --split test or val"
        )


# --- images and their features ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chosen:
    """Images of a split by their places long `[n]`."""

    split: "Split"
    places: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def with_classes(self, most: int) -> TensorSplit:
        """The first `most` images with their classes, in memory."""
        images, labels = self.split.batch(self.places[:most])
        return TensorSplit(images, labels)

    def features(self, space: FeatureSpace) -> Tensor:
        """Float64 `[n, width]`; no more than a part of the images is in memory at once."""
        parts = [space(self.split.batch(part).images) for part in self.places.split(CHUNK)]
        return torch.cat(parts) if parts else torch.zeros(0, space.width, dtype=torch.float64)


@dataclass(frozen=True)
class _RealImages:
    """Those that samples are compared with, others of no training, and training images in random order."""

    evaluated: _Chosen
    held: _Chosen
    train: _Chosen


def _real_images(case: Case) -> _RealImages:
    evaluated, held = case.data.split(case.split), case.data.test if case.split == "val" else case.data.val
    most = REFERENCES if case.max_images is None else min(REFERENCES, case.max_images)
    chosen = subset(len(evaluated), most, seeded("cpu", "quality images", case.seed))
    if len(chosen) < 2:
        raise GenzooError(
            f"samples are compared with two images or more, there are {len(chosen)}: take another --split"
        )
    order = torch.randperm(len(case.data.train), generator=seeded("cpu", "quality train", case.seed))
    others = subset(len(held), REFERENCES, seeded("cpu", "quality held", case.seed))
    return _RealImages(
        _Chosen(evaluated, chosen), _Chosen(held, others), _Chosen(case.data.train, order[:TRAINING_IMAGES])
    )


def _check_dispersion(space: FeatureSpace, features: Tensor) -> None:
    if bool((features == features[0]).all()):
        raise GenzooError(
            f"the feature extractor {space.name} ({space.identity}) sees no difference between these images: "
            "take another --features"
        )


def _feature_sets(case: Case, space: FeatureSpace, drawn: Drawn, images: _RealImages) -> FeatureSets:
    real = images.evaluated.features(space)
    _check_dispersion(space, real)
    return FeatureSets(
        samples=space(drawn.images), real=real, held=images.held.features(space),
        train=images.train.features(space), seed=case.seed,
    )  # fmt: skip


# --- sections --------------------------------------------------------------------------------------------------


def _about(space: FeatureSpace, drawn: Drawn, seed: int) -> dict[str, Any]:
    """What figures must be read with."""
    return {
        "extractor": {"name": space.name, "identity": space.identity, "width": space.width, "scale": space.scale},
        "samples": len(drawn.images), "asked": drawn.asked, "conditions": drawn.conditions, "seed": seed,
        "sampling_seconds": drawn.seconds,
    }  # fmt: skip


def _class_figures(
    case: Case, drawn: Drawn, images: _RealImages
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Of samples that were asked to be of a class: whether they are, and whether they teach it."""
    if drawn.classes is None:
        return {}, {}
    samples = TensorSplit(drawn.images, drawn.classes)
    real, train = (part.with_classes(CLASSIFIED) for part in (images.evaluated, images.train))
    return collected({
        "class_accuracy": lambda: class_figures(samples, real, train, case.model.spec, seed=case.seed)
    })  # fmt: skip


def _quality_section(
    case: Case,
    figures: Mapping[str, Estimate],
    missing: Mapping[str, str],
    about: Mapping[str, Any],
    references: int,
    start: float,
    picture: Path,
) -> Section:
    rows = {"feature extractor": f"{about['extractor']['name']} {about['extractor']['identity']}"}
    rows |= {"warning: feature extractor": about["remark"]} if about["remark"] else {}
    rows |= _rows(figures, missing) | {"samples": _count_text(about, references)}
    content = {
        **about, "figures": _json(figures), "missing": dict(missing), "seconds": time.perf_counter() - start
    }  # fmt: skip
    return Section("quality", case.name, content, rows, [picture])


def _count_text(about: Mapping[str, Any], images: int) -> str:
    cut = "" if about["samples"] == about["asked"] else f" of {about['asked']:,} (time was up)"
    given = "" if about["conditions"] == "none" else f", given {about['conditions']}"
    return f"{about['samples']:,}{cut} against {images:,} images{given}"


def _rows(figures: Mapping[str, Estimate], missing: Mapping[str, str]) -> dict[str, str]:
    rows = {display_name(name): str(figure) for name, figure in figures.items()}
    return rows | {display_name(name): f"none: {reason}" for name, reason in missing.items()}


def _json(figures: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: figure.to_json() for name, figure in figures.items()}


def _memorisation_section(
    case: Case, sets: FeatureSets, shown: Tensor, path: Path, about: Mapping[str, Any]
) -> Section:
    """Figures, and pairs of samples and training images `shown` `[n, 2, c, h, w]` as a picture."""
    figures, missing = memorisation_figures(sets)
    save_neighbours(shown, case.model.spec, path)
    content = {**about, "training_images": len(sets.train), "figures": _json(figures), "missing": missing}
    return Section(
        "memorisation", case.name, {**content, "picture": str(path)}, _rows(figures, missing), [path]
    )


def _classes_section(
    case: Case, drawn: Drawn, sets: FeatureSets, train: _Chosen, path: Path
) -> Section | None:
    """The classes of samples, with a picture of some of each; None where classes were asked for or there are none."""
    labels = train.split.labels
    if case.model.spec.cond is not None or labels is None or labels.ndim != 1:
        return None
    bank = Labelled(sets.train.float(), labels[train.places].long())
    shares = class_shares(
        bank, sets.samples, sets.real, sets.stand_in, generator=sets.generator("class shares")
    )
    shown = by_class(drawn.images, shares.found, min(bank.classes, MOST_CLASSES), PER_CLASS)
    save_grid(shown.flatten(0, 1), case.model.spec, path, columns=PER_CLASS)
    content = {"seed": case.seed, **shares.to_json(_names(case, bank.classes)), "picture": str(path)}
    return Section(
        "classes", case.name, content, {"class distribution shift (TV)": str(shares.shift)}, [path]
    )


def _names(case: Case, classes: int) -> Sequence[str]:
    """Of classes; their numbers where they have no names, and nothing for too many to be told one by one."""
    if classes > MOST_CLASSES:
        return ()
    try:
        return class_names(case.data)
    except GenzooError:
        return [str(c) for c in range(classes)]


def _nearest_pairs(drawn: Drawn, sets: FeatureSets, train: _Chosen) -> Tensor:
    """The samples nearest to a training image, for where it lies, each with that image: `[n, 2, c, h, w]`."""
    images = LazyImages(
        lambda places: train.split.batch(train.places[places]).images, (len(train), *drawn.images.shape[1:])
    )
    return neighbours_picture(drawn.images, images, suspects(sets.train, sets.samples))
