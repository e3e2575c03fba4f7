"""What a report holds of an encoder, in the manner of `genzoo.evaluation.report.schema`."""

from dataclasses import dataclass, field
from typing import Any

from genzoo.metrics.estimate import Count, Estimate


@dataclass(frozen=True)
class ProbesResult:
    """Accuracies of classifiers of frozen vectors; `strength` is the linear probe's C, chosen by `validation`."""

    test_id: str
    knn: Estimate
    few_shot: Estimate
    linear: Estimate
    neighbours: Count
    examples: Count
    draws: Count
    strength: float
    validation: float
    images: Count
    train_images: Count
    held_out_images: Count
    split: str | None = None
    seed: int | None = None
    protocol: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FineTuningResult:
    """The accuracy of a backbone that was trained on as a classifier."""

    test_id: str
    accuracy: Estimate
    images: Count
    steps: Count
    batch_size: Count
    learning_rate: float


@dataclass(frozen=True)
class SpaceResult:
    """How vectors fill their space; `std` and `least_std` are deviations of a dimension in the units of the vectors."""

    test_id: str
    effective_rank: Estimate
    spread: Estimate
    uniformity: Estimate
    alignment: Estimate | None
    class_alignment: Estimate | None
    std: float
    least_std: float
    width: Count
    images: Count
    collapsed: bool


@dataclass(frozen=True)
class MapResult:
    """A picture of the vectors in the plane."""

    test_id: str
    picture: str
