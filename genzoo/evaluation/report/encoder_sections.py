"""The sections of an encoder's evaluation: what its vectors are good for, how they fill their space, and a map of them.

In the manner of `genzoo.evaluation.report.sections`: one question each, answered in figures for `report.json`, table
rows and pictures.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import GenzooError
from genzoo.core.progress_bar import progress_bar
from genzoo.core.random import seeded
from genzoo.data.augmentations import Augmentation, MultiCrop
from genzoo.evaluation.embedding_map import FEWEST_POINTS, save_embedding_map
from genzoo.evaluation.fine_tuning import FineTuning, fine_tune
from genzoo.evaluation.likelihood import subset
from genzoo.evaluation.report.measuring import set_id
from genzoo.evaluation.report.sections import Section
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

if TYPE_CHECKING:
    from genzoo.data.image_data import ImageData
    from genzoo.data.split import Split
    from genzoo.models.base import Encoder

CHUNK = 500  # images read at once
EXAMPLES, DRAWS = 10, 20  # held-out images per class, at most, and how often they are chosen anew
MOST_HELD = 5000  # images that choices are made on and examples come from
PAIRS = 1000  # images whose views are compared
SPREAD_IMAGES = 5000  # images whose pairs are all compared
MAP = "embeddings.png"
COLLAPSED = "YES: its vectors lie (nearly) in a point or on a line, so all images look alike to it"


@dataclass(frozen=True)
class EncoderCase:
    """An encoder, the images it is evaluated on (`split` is test or val), and how.

    `bank_images` bounds the training images that probes learn from. Vectors are computed when they are first asked for,
    and once. Raises `GenzooError` for the training split, which would be probed by its own images.
    """

    encoder: "Encoder"
    data: "ImageData"
    split: str = "test"
    seed: int = 0
    max_images: int | None = None
    bank_images: int | None = None

    def __post_init__(self) -> None:
        if self.split == "train":
            raise GenzooError("an encoder is probed by its training images: take --split test or val")
        if self.max_images is not None and self.max_images < 2:
            raise GenzooError(
                f"an encoder is evaluated on 2 images or more, got --max-images {self.max_images}"
            )

    @property
    def name(self) -> str:
        """What the evaluated images are called in reports."""
        return set_id(self.data, self.split)

    @property
    def labelled(self) -> bool:
        """Whether the images have classes."""
        return all(
            classes_of(split) is not None for split in (self.data.train, self._held_split, self.evaluated)
        )

    def generator(self, purpose: str) -> torch.Generator:
        """On the CPU, the same for the same seed and purpose."""
        return seeded("cpu", purpose, self.seed)

    @cached_property
    def queries(self) -> Tensor:
        """Vectors `[n, width]` of the evaluated images."""
        return embed(self.encoder, self.evaluated, self.chosen)

    @cached_property
    def parts(self) -> tuple[Labelled, Labelled, Labelled]:
        """Training vectors, held-out ones (for choices, and examples) and the evaluated ones, with classes.

        Held out is the validation split, cut from the training images; where that is evaluated itself, a tenth of the
        training split.
        """
        train = self.data.train
        order = torch.randperm(len(train), generator=self.generator("bank"))
        away = min(MOST_HELD, len(train) // 10) if self.split == "val" else 0
        held = order[:away] if away else subset(len(self.data.val), MOST_HELD, self.generator("held"))
        bank = order[away:][: self.bank_images]
        return self._with_classes(train, bank), self._with_classes(self._held_split, held), Labelled(
            self.queries, _classes(self.evaluated, self.chosen)
        )  # fmt: skip

    def _with_classes(self, split: "Split", indices: Tensor) -> Labelled:
        return Labelled(embed(self.encoder, split, indices), _classes(split, indices))

    @property
    def evaluated(self) -> "Split":
        """The split that holds the evaluated images."""
        return self.data.split(self.split)

    @property
    def _held_split(self) -> "Split":
        return self.data.train if self.split == "val" else self.data.val

    @property
    def chosen(self) -> Tensor:
        """Which images of `evaluated`, long `[n]`."""
        return subset(len(self.evaluated), self.max_images, self.generator("evaluate"))


def embed(encoder: "Encoder", split: "Split", indices: Tensor) -> Tensor:
    """Vectors `[m, width]`, on the CPU, of the images of `split` at long `indices` `[m]`, read a few at a time."""
    with progress_bar("embedding", len(indices)) as progress:
        parts = []
        for part in indices.split(CHUNK):
            parts.append(encoder.embed(split.batch(part).images.to(encoder.device)).cpu())
            progress(len(part))
    return torch.cat(parts) if parts else torch.zeros(0, encoder.width)


def classes_of(split: "Split") -> Tensor | None:
    """The classes long `[n]` of a split; None where it has vectors or nothing."""
    return split.labels if split.labels is not None and split.labels.ndim == 1 else None


def _classes(split: "Split", indices: Tensor) -> Tensor:
    labels = classes_of(split)
    assert labels is not None
    return labels[indices]


# --- all of them -----------------------------------------------------------------------------------------------


def encoder_sections(
    case: EncoderCase, folder: Path | None = None, fine_tuning: FineTuning | None = None
) -> list[Section]:
    """Everything there is to tell of an encoder; the map is drawn into `folder`, where one is given.

    Raises `GenzooError` where `fine_tuning` is asked for of images without classes.
    """
    sections = [probes_section(case)] if case.labelled else []
    if fine_tuning is not None:
        sections.append(fine_tuning_section(case, fine_tuning))
    sections.append(space_section(case))
    if folder is not None and len(case.queries) >= FEWEST_POINTS:
        sections.append(map_section(case, folder))
    return sections


# --- probes ----------------------------------------------------------------------------------------------------


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


def probes_section(case: EncoderCase) -> Section:
    """Nearest neighbours, average similarity to a few held-out examples, and a linear probe."""
    bank, held, queries = case.parts
    counts = torch.bincount(held.labels)
    examples = min(EXAMPLES, int(counts[counts > 0].min()))
    figures = probe(bank, held, queries, examples=examples, seed=case.seed)
    content = {
        "protocol": case.data.protocol, "split": case.split, "seed": case.seed, "images": len(queries),
        "train_images": len(bank), "held_out_images": len(held),
        "knn": {"k": NEIGHBOURS, **figures.knn._asdict()},
        "few_shot": {"examples": examples, "draws": DRAWS, **figures.few_shot._asdict()},
        "linear": {**figures.linear._asdict(), "C": figures.strength, "validation": figures.validation},
    }  # fmt: skip
    return Section("probes", case.name, content, {**probe_rows(figures), **_set_rows(case, len(bank))})


def probe_rows(figures: ProbeFigures) -> dict[str, str]:
    """For a table."""
    return {
        f"{NEIGHBOURS} nearest neighbours": percent(figures.knn),
        f"similarity to {figures.examples} per class": f"{percent(figures.few_shot)} ({figures.draws} draws)",
        "linear probe": f"{percent(figures.linear)} (C = {figures.strength:g})",
    }


def _set_rows(case: EncoderCase, bank: int) -> dict[str, str]:
    size, evaluated = case.data.protocol["sizes"][case.split], len(case.queries)
    part = "" if evaluated == size else f" of {size}"
    return {f"{case.split} set": f"{case.name} ({evaluated}{part} images, {bank} to learn from)"}


def percent(share: Share) -> str:
    """An accuracy with its standard error.

    >>> percent(Share(0.9712, 0.0017))
    '97.1 ± 0.2%'
    """
    return f"{100 * share.value:.1f} ± {100 * share.stderr:.1f}%"


def fine_tuning_section(case: EncoderCase, how: FineTuning) -> Section:
    """How good a classifier the backbone becomes when it is trained on, on all training images.

    Raises `GenzooError` where there are no classes, or the encoder has no network of its own to train on.
    """
    encoder = case.encoder
    backbone = getattr(encoder, "backbone", None)
    if not isinstance(backbone, nn.Module) or not case.labelled:
        raise GenzooError(
            "--fine-tune needs an encoder with a backbone and images with classes; leave it out"
        )
    model = fine_tune(
        backbone, encoder.width, case.data.train, encoder.spec, how,
        generator=case.generator("fine-tuning"),
    )  # fmt: skip
    predicted = [model.predict(case.evaluated.batch(part).images) for part in case.chosen.split(CHUNK)]
    share = accuracy(torch.cat(predicted), _classes(case.evaluated, case.chosen))
    content = {**asdict(how), **share._asdict(), "images": len(case.chosen)}
    return Section("fine_tuning", case.name, content, {f"fine-tuned, {how.steps} steps": percent(share)})


# --- the space -------------------------------------------------------------------------------------------------


def space_section(case: EncoderCase) -> Section:
    """Effective rank, dispersion, uniformity and alignment; says so where the encoder has collapsed."""
    vectors = case.queries
    collapse, few = Collapse.of(vectors), vectors[:SPREAD_IMAGES]
    content: dict[str, Any] = {
        "images": len(vectors), **asdict(collapse), "collapsed": collapse.collapsed,
        "uniformity": uniformity(few), "alignment": view_alignment(case), "class_alignment": class_alignment(case),
    }  # fmt: skip
    return Section("space", case.name, content, space_rows(collapse, content))


def space_rows(collapse: Collapse, content: dict[str, Any]) -> dict[str, str]:
    """For a table."""
    rows = {
        "effective rank": f"{collapse.effective_rank:.1f} of {collapse.width}",
        "deviation per dimension": f"{collapse.std:.3g} on average, {collapse.least_std:.2g} at least",
        "dispersion": f"{collapse.dispersion:.3f}",
        "uniformity": f"{content['uniformity']:.2f}",
    }
    kinds = {"views": content["alignment"], "images of a class": content["class_alignment"]}
    told = [f"{value:.3f} ({kind})" for kind, value in kinds.items() if value is not None]
    if told:
        rows["alignment"] = ", ".join(told)
    rows["collapsed"] = COLLAPSED if collapse.collapsed else "no"
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
    labels = _classes(case.evaluated, case.chosen)
    order = torch.randperm(len(labels), generator=case.generator("pairs"))
    order = order[labels[order].sort(stable=True).indices]  # class by class, in random order
    first, second = order[:-1], order[1:]
    same = labels[first] == labels[second]
    return alignment(case.queries[first[same]], case.queries[second[same]]) if bool(same.any()) else None


def map_section(case: EncoderCase, folder: Path) -> Section:
    """A picture of the evaluated images' vectors in the plane."""
    labels = classes_of(case.evaluated)
    chosen = None if labels is None else labels[case.chosen]
    path = folder / MAP
    save_embedding_map(case.queries, chosen, path, title=case.name, generator=case.generator("map"))
    return Section("map", case.name, {"picture": str(path)}, {}, [path])
