"""What a report holds of samples, in the manner of `genzoo.evaluation.report.schema`.

Each part says how its samples were decoded: draws and means of one model are samples of two kinds.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from genzoo.metrics.estimate import Count, Estimate

DecodingName = Literal["draw", "mean"]
"""How samples came of an output distribution; "draw" where there is none, and in reports of former versions."""


def decoding_of(part: Any) -> DecodingName:
    """How the samples were decoded that a part of a report is about; "draw" where it is about none."""
    return getattr(part, "decode", "draw")


@dataclass(frozen=True)
class ExtractorFacts:
    """The feature extractor that samples were seen by, known by the hash of what made it."""

    name: str
    identity: str
    width: Count
    scale: float = 1.0


@dataclass(frozen=True)
class QualityResult:
    """Figures of samples against real images in the features of one extractor.

    `missing` says of which there are none, and why; `remark` what must be known of the extractor.
    """

    test_id: str
    extractor: ExtractorFacts
    figures: dict[str, Estimate]
    missing: dict[str, str] = field(default_factory=dict)
    samples: Count = 0
    asked: Count = 0
    references: Count | None = None
    conditions: str = "none"
    seed: int | None = None
    sampling_seconds: float | None = None
    remark: str | None = None
    seconds: float | None = None
    picture: str | None = None
    typical_picture: str | None = None
    typicality: tuple[float, ...] = ()
    """The share of held-out real images that lie as far out, of the best, the median and the worst samples shown."""
    decode: DecodingName = "draw"


@dataclass(frozen=True)
class PublishedResult:
    """Fréchet distances of samples in the features of published networks; `extractors` tells which, by figure."""

    test_id: str
    extractors: dict[str, ExtractorFacts]
    figures: dict[str, Estimate]
    missing: dict[str, str] = field(default_factory=dict)
    samples: Count = 0
    seed: int | None = None
    seconds: float | None = None
    decode: DecodingName = "draw"

    def alone(self, name: str) -> QualityResult | None:
        """One of them, as a report on samples; None where there is none."""
        if name not in self.extractors:
            return None
        figures = {name: self.figures[name]} if name in self.figures else {}
        missing = {name: self.missing[name]} if name in self.missing else {}
        return QualityResult(
            self.test_id,
            self.extractors[name],
            figures,
            missing,
            self.samples,
            seed=self.seed,
            decode=self.decode,
        )


@dataclass(frozen=True)
class MemorisationResult:
    """Whether samples are copies of training images, as `QualityResult` has it."""

    test_id: str
    extractor: ExtractorFacts
    figures: dict[str, Estimate]
    missing: dict[str, str] = field(default_factory=dict)
    samples: Count = 0
    asked: Count = 0
    training_images: Count = 0
    conditions: str = "none"
    seed: int | None = None
    sampling_seconds: float | None = None
    remark: str | None = None
    picture: str | None = None
    decode: DecodingName = "draw"


@dataclass(frozen=True)
class ClassesResult:
    """The classes of samples that were drawn without asking for one: their shares, and how far these are from real."""

    test_id: str
    shift: Estimate
    share_of: dict[str, Estimate]
    seed: int | None = None
    picture: str | None = None
    decode: DecodingName = "draw"


@dataclass(frozen=True)
class ModesResult:
    """Which of the `modes` of the data samples hit; `divergence` is None where they hit none."""

    test_id: str
    covered: Estimate
    divergence: Estimate | None
    spread: Estimate | None
    modes: Count
    samples: Count
    collapsed: bool
    decode: DecodingName = "draw"


@dataclass(frozen=True)
class InputDistances:
    """What the input images themselves would get in the place of predictions: no figures of the model."""

    l1: float
    psnr: float
    sharpness: float | None = None
    frechet: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TranslationResult:
    """How near predictions from input images come to the truth; `frechet` by feature space."""

    test_id: str
    l1: Estimate
    psnr: Estimate
    sharpness: Estimate | None
    frechet: dict[str, Estimate]
    images: Count
    inputs: InputDistances | None = None
    decode: DecodingName = "draw"
