"""What `genzoo evaluate` does, in Python: a model in memory, or one of a run folder, is evaluated on images.

report = evaluate(model, data)
report.likelihood.bits_per_dim.value, report.quality.figures["frechet"].reference
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from genzoo.core.attempts import Attempts, show_traceback
from genzoo.core.bounds import MOST_SECONDS, Range, check_number, check_seed, shown
from genzoo.core.errors import GenzooError, NoLikelihood, reason_of
from genzoo.core.files import explained_errors, make_folder
from genzoo.core.log_likelihood import LikelihoodKind
from genzoo.core.path_arguments import path_of
from genzoo.core.spec import DataSpec
from genzoo.core.surroundings import check_weights, in_plain_surroundings
from genzoo.data.image_data import ImageData
from genzoo.evaluation.features.extractor import Extractor, default_extractor, extractor_named
from genzoo.evaluation.features.feature_space import FeatureSpace
from genzoo.evaluation.features.published import published_spaces
from genzoo.evaluation.fine_tuning import FineTuning
from genzoo.evaluation.report.ais_section import check_generates
from genzoo.evaluation.report.all_sections import SECTIONS
from genzoo.evaluation.report.case import AISOptions, Case, OODData
from genzoo.evaluation.report.encoder_case import EncoderCase
from genzoo.evaluation.report.evaluated_samples import Inquiry
from genzoo.evaluation.report.probe_sections import check_fine_tunes
from genzoo.evaluation.report.report_file import weights_of
from genzoo.evaluation.report.schema import ModelFacts, Report
from genzoo.evaluation.report.section import Section
from genzoo.models.base import Encoder, GenerativeModel

Features = str | FeatureSpace | Extractor | None
"""Whose features samples are seen in: by name ("pixels", "encoder:RUN" ...), a space, or what makes one."""


_LIMITS = {
    "max_images": Range(1, 2**31), "max_seconds": Range(0, MOST_SECONDS, low_open=True), "samples": Range(0, 10**7),
}  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """What is asked of a model, and how; of what is None nothing more than usual.

    `run` is the folder that the model was trained in, `out` that where pictures go. `samples` counts those that are
    drawn and evaluated in `features` (0: none, else 2,000 or as many as there are images). `ood` are other data that it
    is to tell from its own, `ais` asks for the likelihood of a generator plus noise, `fine_tuning` what becomes of an
    encoder. `published` asks for the Fréchet distance in the features of published networks, too.
    """

    split: str = "test"
    samples: int | None = None
    features: Features = None
    max_images: int | None = None
    max_seconds: float | None = None
    seed: int = 0
    out: Path | None = None
    run: Path | None = None
    samples_only: bool = False
    ood: OODData | None = None
    ais: AISOptions | None = None
    fine_tuning: FineTuning | None = None
    published: bool = False

    def __post_init__(self) -> None:
        if self.split not in ("test", "val", "train"):
            raise GenzooError(f"a split is test, val or train, got {self.split!r}")
        check_seed(self.seed)
        for name, allowed in _LIMITS.items():
            value = getattr(self, name)
            if value is not None:
                check_number(f"--{name.replace('_', '-')}", value, allowed, whole=name != "max_seconds")
        if self.samples == 1:
            raise GenzooError(f"--samples must be 0 (none) or at least 2, got {self.samples}")
        if self.samples == 0 and self.samples_only:
            raise GenzooError(
                "--samples-only has nothing to evaluate with --samples 0; leave one of them out"
            )
        if self.samples == 0 and self.features is not None:
            raise GenzooError("--features has nothing to evaluate with --samples 0; leave one of them out")
        if self.samples == 0 and self.published:
            raise GenzooError("--published has nothing to evaluate with --samples 0; leave one of them out")

    @property
    def wants_samples(self) -> bool:
        """Whether somebody asked for samples, rather than took what comes."""
        return self.samples is not None or self.features is not None or self.published

    def inquiry(self) -> Inquiry | None:
        """In which features how many samples are evaluated; None: none are."""
        return None if self.samples == 0 else Inquiry(extractor_of(self.features), self.samples)


def evaluate(
    model: GenerativeModel | Encoder,
    data: ImageData,
    *,
    split: str = "test",
    samples: int | None = None,
    features: Features = None,
    max_images: int | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
) -> Report:
    """Judges `model` on a split of `data`: a `Report` with a part for each question that concerns it.

    Of a generative model these are likelihood, samples, cost and more, of an encoder its probes. `samples` are drawn
    and evaluated in `features`: "pixels", "random", "encoder:RUN", "inception", "dinov2" or a feature space; else a
    small encoder is trained on the training images once and kept. `max_images` bounds the evaluated images,
    `max_seconds` each measurement of likelihoods. Pictures are drawn where `out` names a folder for them.

    Raises `GenzooError` where the data do not fit the model, or samples that were asked for cannot be evaluated.
    """
    folder = None if out is None else path_of(out, "out")
    if folder is not None:
        with explained_errors(folder):
            make_folder(folder)
    return evaluate_with(
        model, data, Evaluation(split, samples, features, max_images, max_seconds, seed, folder)
    )


@in_plain_surroundings
def evaluate_with(model: Any, data: Any, how: Evaluation) -> Report:
    """As `evaluate`, with all that can be asked."""
    check_fits(model, data)
    check_weights(model)
    weights = None if how.run is None else weights_of(how.run)
    return replace(_evaluated(model, data, how), weights=weights)


def _evaluated(model: GenerativeModel | Encoder, data: ImageData, how: Evaluation) -> Report:
    if isinstance(model, Encoder):
        return _of_encoder(model, data, how)
    if how.ais is not None:
        check_generates(model)
    published = published_spaces(data.spec.levels or 256, model.device) if how.published else {}
    case = Case(
        model, data, how.split, how.seed, how.max_images, how.max_seconds, how.run, how.out, how.inquiry(), how.ood,
        how.ais, published=published,
    )  # fmt: skip
    return _of_case(case, how)


@in_plain_surroundings
def feature_space(data: ImageData, features: Features = None) -> FeatureSpace:
    """The feature extractor for samples of these data: images `[n, c, h, w]` to float64 `[n, d]`.

    The default one is trained on the training images once, and kept in $GENZOO_CACHE or ~/.cache/genzoo.
    """
    _check_data(data)
    return default_extractor(data) if features is None else extractor_of(features).make(data)


def extractor_of(features: Features) -> Extractor:
    """What makes the feature space. Raises `GenzooError` for a name that is none."""
    if isinstance(features, Extractor):
        return features
    if isinstance(features, FeatureSpace):
        return Extractor(lambda data: features)
    if features is not None and not isinstance(features, str):
        raise GenzooError(f"features are a name such as 'pixels', or a feature space, got {shown(features)}")
    return extractor_named(features)


# --- what fits -------------------------------------------------------------------------------------------------


def check_fits(model: Any, data: Any) -> None:
    """Raises `GenzooError` unless `data` are images of the kind that `model`, a model or an encoder, is made for."""
    if not isinstance(model, (GenerativeModel, Encoder)):
        raise GenzooError(
            f"a model or an encoder is evaluated, got {type(model).__name__}: load one with genzoo.load"
        )
    _check_data(data)
    if data.spec != model.spec:
        raise GenzooError(f"{data.name} does not fit this model: {_difference(model.spec, data.spec)}")


def _check_data(data: Any) -> None:
    if not isinstance(data, ImageData):
        raise GenzooError(
            f"an evaluation takes data with all their splits, got {type(data).__name__}: use genzoo.load_data"
        )


def _difference(wanted: DataSpec, found: DataSpec) -> str:
    key = next(key for key in vars(wanted) if vars(wanted)[key] != vars(found)[key])
    return f"its {key} is {vars(found)[key]}, the model was made for {vars(wanted)[key]}"


# --- measuring -------------------------------------------------------------------------------------------------


def _of_encoder(encoder: Encoder, data: ImageData, how: Evaluation) -> Report:
    if how.wants_samples or how.samples_only or how.ood or how.ais:
        raise GenzooError("an encoder draws nothing: samples, OOD and AIS are for models that draw images")
    case = EncoderCase(
        encoder, data, how.split, how.seed, how.max_images, out=how.out, fine_tuning=how.fine_tuning
    )
    if how.fine_tuning is not None:
        check_fine_tunes(case)
    return measured(case)


def _of_case(case: Case, how: Evaluation) -> Report:
    """Samples first: a feature extractor that is refused is refused at once."""
    missing = {}
    if case.inquiry is not None:
        try:
            _ = case.samples
        except Exception as error:
            if how.wants_samples and isinstance(error, GenzooError):
                raise
            show_traceback(error)
            case, missing = replace(case, inquiry=None), {"quality": reason_of(error)}
    sections = [s for s in SECTIONS if s.of_samples] if how.samples_only else SECTIONS
    report = measured(case, sections)
    return replace(report, missing={**report.missing, **missing})


def measured(case: Case | EncoderCase, sections: Sequence[Section] = SECTIONS) -> Report:
    """The answers to those of the questions that concern the case; in `missing` why there is no answer to others.

    Whatever goes wrong in one of them costs that one alone.
    """
    attempts = case.attempts if isinstance(case, Case) else Attempts()
    parts = {section.name: attempts(section.name, lambda s=section: _answer(s, case)) for section in sections}
    former = case.data.protocol.get("former_test_id") if case.split == "test" else None
    return Report(case.name, facts_of(case), **parts, missing=attempts.missing, former_id=former)


def _answer(section: Section, case: Case | EncoderCase) -> Any:
    return section.measure(case) if section.applies(case) else None


def facts_of(case: Case | EncoderCase) -> ModelFacts:
    """What is evaluated."""
    model = case.model if isinstance(case, Case) else case.encoder
    spec = model.spec
    return ModelFacts(
        type(model).__name__, case.data.name, tuple(spec.shape), spec.levels, spec.cond, spec.cond_size,
        sum(p.numel() for p in model.parameters()),
        no_likelihood(model) if isinstance(model, GenerativeModel) else None,
        None if case.out is None else str(case.out),
    )  # fmt: skip


def no_likelihood(model: GenerativeModel) -> str | None:
    """Why the model gives images no probability; None where it does."""
    if model.likelihood is not LikelihoodKind.NONE:
        return None
    image = torch.zeros(1, *model.spec.shape, dtype=torch.uint8)
    try:
        model.log_likelihood(image)
    except NoLikelihood as reason:
        return str(reason)
    except (GenzooError, RuntimeError, ValueError):  # it asks for a condition first
        return "the family defines no probability of an image"
    return None
