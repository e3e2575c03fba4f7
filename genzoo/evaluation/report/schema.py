"""What a report holds: one frozen dataclass per question, written and read by these very types.

A figure of a model is a field of type `Estimate`, wherever it stands. Counts, constants, flags, seeds and seconds are
ordinary fields, so that nothing shows or ranks them as figures. What was not measured is None.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final, get_type_hints

from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.evaluation.cost import Cost
from genzoo.evaluation.report.encoder_schema import FineTuningResult, MapResult, ProbesResult, SpaceResult
from genzoo.evaluation.report.sample_schema import (
    ClassesResult,
    DecodingName,
    MemorisationResult,
    ModesResult,
    PublishedResult,
    QualityResult,
    TranslationResult,
    decoding_of,
)
from genzoo.metrics.estimate import Count, Estimate

FORMAT = 2
"""Of `report.json`; what has no number was written before it was counted."""

KindName = Literal["ESTIMATE", "LOWER_BOUND", "EXACT"]
"""How a likelihood relates to the truth, by the name of a `genzoo.Likelihood`."""


@dataclass(frozen=True)
class ModelFacts:
    """What was evaluated: a model by its name, on images of so many levels, and where its pictures lie."""

    name: str
    data: str
    shape: tuple[Count, ...]
    levels: int | None
    cond: str | None = None
    cond_size: Count = 0
    parameters: Count = 0
    no_likelihood: str | None = None
    """Why the family gives images no probability; None where it does."""
    folder: str | None = None


# --- likelihoods -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LikelihoodResult:
    """The likelihood of a set of images, in the mean: `nats` is that of log P(x), `bits_per_dim` of -log2 P(x) / D."""

    test_id: str
    bits_per_dim: Estimate
    nats: Estimate
    kind: KindName
    images: Count
    images_per_second: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    """How it was computed."""
    split: str | None = None
    seed: int | None = None
    parameters: Count | None = None
    protocol: dict[str, Any] = field(default_factory=dict)
    """Of the data: how their splits came about."""
    gap: "GeneralisationGap | None" = None

    @property
    def likelihood(self) -> LikelihoodKind:
        """The kind."""
        return LikelihoodKind[self.kind]

    @property
    def symbol(self) -> str:
        """The relation of the figure to the truth."""
        return self.likelihood.symbol

    @property
    def conditional(self) -> bool:
        """Whether it is that of images given their labels."""
        return bool(self.details.get("conditional"))


@dataclass(frozen=True)
class GeneralisationGap:
    """How many bits/dim worse the images are than training images."""

    bits_per_dim: Estimate
    train_images: Count
    train_bits_per_dim: float
    """Of these training images."""


@dataclass(frozen=True)
class BaselinesResult:
    """What classical methods and codecs say of the same images, by their names."""

    test_id: str
    likelihoods: dict[str, LikelihoodResult]
    split: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class ClassificationResult:
    """What a class-conditional model gets right as a classifier; `kind` is that of log p(x|y)."""

    test_id: str
    accuracy: Estimate
    nll: Estimate
    calibration_error: Estimate
    confidence: Estimate
    images: Count
    classes: Count
    kind: KindName
    details: dict[str, Any] = field(default_factory=dict)
    split: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class AISResult:
    """The likelihood under "generator plus observation noise", which is another model than the generator."""

    test_id: str
    bits_per_dim: Estimate
    nats: Estimate
    kind: KindName
    images: Count
    scale: float
    """Standard deviation of the noise, where images range over 2."""
    bdmc_gap: float
    """Nats between the bounds of bidirectional Monte Carlo."""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def symbol(self) -> str:
        """The relation of the figure to the truth."""
        return LikelihoodKind[self.kind].symbol


@dataclass(frozen=True)
class OODResult:
    """How well each score tells images of the data set `against` from the model's own: AUROC, 1/2 is chance."""

    test_id: str
    against: str
    auroc: dict[str, Estimate]
    entropy: float
    """Bits/dim of validation images, which typicality is measured from."""
    images: tuple[Count, Count]
    """Of the model's own data, and of the others."""
    kind: KindName


# --- what a model is like --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LatentsResult:
    """What the latents hold, as far as the family has them; `more` is what a family from outside tells."""

    test_id: str
    images: Count
    rate: Estimate | None = None
    distortion: Estimate | None = None
    codebook_usage: Estimate | None = None
    codebook_perplexity: Estimate | None = None
    kl_per_group: tuple[float, ...] | None = None
    active_units: Count | None = None
    active_units_per_group: tuple[Count, ...] | None = None
    latents: Count | None = None
    codes: Count | None = None
    more: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class IllustrationsResult:
    """Pictures of the model at work."""

    test_id: str
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class CostResult:
    """What training has cost, and drawing and scoring cost here."""

    test_id: str
    cost: Cost
    seed: int | None = None


# --- all of it -------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Report:
    """All that was measured of a model on one set of images, one part per question; None: not asked, or no answer.

    `missing` says why there is no answer where one might expect it; it is not written.
    """

    test_id: str
    about: ModelFacts | None = None
    modes: ModesResult | None = None
    translation: TranslationResult | None = None
    likelihood: LikelihoodResult | None = None
    baselines: BaselinesResult | None = None
    latents: LatentsResult | None = None
    classification: ClassificationResult | None = None
    cost: CostResult | None = None
    quality: QualityResult | None = None
    published: PublishedResult | None = None
    memorisation: MemorisationResult | None = None
    classes: ClassesResult | None = None
    illustrations: IllustrationsResult | None = None
    ood: OODResult | None = None
    ais: AISResult | None = None
    probes: ProbesResult | None = None
    fine_tuning: FineTuningResult | None = None
    space: SpaceResult | None = None
    map: MapResult | None = None
    missing: dict[str, str] = field(default_factory=dict, compare=False)
    former_id: str | None = field(default=None, compare=False)
    """What former versions called the same images: figures under that name are replaced."""
    weights: str | None = field(default=None, compare=False)
    """The SHA-256 of the file of weights that were evaluated; None: those that lie where the report is written."""

    @property
    def decode(self) -> DecodingName:
        """How the samples that it is about were decoded."""
        return next((decoding_of(part) for _, part in self.parts() if decoding_of(part) != "draw"), "draw")

    def parts(self) -> Iterator[tuple[str, Any]]:
        """The parts there are, by their names."""
        for name in PARTS:
            part = getattr(self, name)
            if part is not None:
                yield name, part


def _part_types() -> dict[str, type]:
    """The type of each part of a `Report` by its name."""
    hints = get_type_hints(Report)
    return {
        name: hints[name].__args__[0]
        for name in hints
        if name not in ("test_id", "missing", "former_id", "weights")
    }


PARTS: Mapping[str, type] = _part_types()
"""What `report.json` can hold."""


def figures_of(part: Any, name: str = "") -> dict[str, Estimate]:
    """All figures of the model in a part of a report, by their path of field names and keys.

    >>> list(figures_of(ClassesResult("test", Estimate(0.5, 4, 4), {"cat": Estimate(0.25, 4, 4)}, seed=3)))
    ['shift', 'share of cat']
    """
    if isinstance(part, Estimate):
        return {name: part}
    found: dict[str, Estimate] = {}
    if dataclasses.is_dataclass(part):
        inner: Any = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
    else:
        inner = part if isinstance(part, Mapping) else {}
    for key, value in inner.items():
        below = "" if key == "figures" else str(key).replace("_", " ")
        found |= figures_of(value, f"{name} {below}".strip())
    return found
