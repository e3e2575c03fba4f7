"""`python -m genzoo.evaluate RUN [flags]`: how likely a trained model finds images it has not seen, and what it draws.

Samples are evaluated in the features of an encoder that had no part in the model, and searched for copies of training
images. Of models with latents it also tells what these hold, in figures and pictures; of those without a likelihood,
which modes of the data their samples hit. Of an encoder it tells what its vectors are good for and how they lie.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from genzoo.cli import parsing
from genzoo.cli.imports import Imports, imported
from genzoo.cli.shared import guarded, print_table
from genzoo.evaluation.report.report_file import REPORT, add_to_report
from genzoo.models.run_data import DataArguments, data_of_run

if TYPE_CHECKING:
    from genzoo.core.trainable import Trainable
    from genzoo.data.image_data import ImageData
    from genzoo.evaluation.report.quality_sections import Inquiry
    from genzoo.evaluation.report.sections import Case, Section
    from genzoo.models.base import Encoder, GenerativeModel
    from genzoo.objectives.likelihood.decoder import Annealing

PROG = "genzoo evaluate"


@dataclass(frozen=True)
class EvaluateFlags:
    """Measures the likelihood of images under a trained model, or probes an encoder; writes RUN/report.json."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    data: str | None = None
    """Other data than the run's own (digits, mnist, folder:PATH ...)."""
    data_root: str | None = None
    """Where data sets lie; else where the run found them, or $GENZOO_DATA."""
    image_size: int | None = None
    """Images of a folder are resized and cropped to this many pixels."""
    skip_bad_images: bool = False
    """Count and leave out images that cannot be read."""
    split: Literal["test", "val", "train"] = "test"
    """Which images."""
    max_images: int | None = None
    """A random subset of this many images; else all."""
    max_seconds: float | None = None
    """End each measurement of likelihoods after this time, with the images, in random order, that were measured by
    then."""
    samples: int | None = None
    """Samples to draw and evaluate, else 2,000 or as many as there are images to compare them with; 0: none. Drawing
    ends after five minutes with what there is by then."""
    samples_only: bool = False
    """Evaluate samples and draw pictures; likelihoods and costs in the report stay as they are."""
    features: str | None = None
    """Feature extractor of FID-like metrics: encoder:RUN, pixels, random, inception or dinov2; else a small encoder
    that is trained on the training images once and cached in $GENZOO_CACHE or ~/.cache/genzoo."""
    ood: str | None = None
    """Out-of-distribution (OOD) detection: also the AUROC against these other data (mnist, folder:PATH ...)."""
    ais: int | None = None
    """Of a model without likelihood: log-likelihood under its generator plus Gaussian observation noise, by annealed
    importance sampling (Wu et al. 2017) on this many images (slow)."""
    ais_steps: int = 500
    """Temperatures of that estimate: more, and the bound is closer and slower."""
    fine_tune: int | None = None
    """Of an encoder: also how good a classifier it becomes when it is trained on for this many steps (slow)."""
    seed: int = 0
    """Decides the subset, and what is random in a likelihood that is a bound or an estimate, or in a probe."""
    device: str | None = None
    """Such as cpu or cuda; else the CPU."""
    import_: Imports = ()
    """A module of your own that registers presets, data sources or metrics (`genzoo.register`); repeatable."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    flags = parsing.parse(EvaluateFlags, imported(sys.argv[1:] if argv is None else argv), PROG)
    return guarded(lambda: _evaluate(flags))


def _evaluate(flags: EvaluateFlags) -> None:
    from genzoo.core.errors import GenzooError
    from genzoo.models.base import Encoder, GenerativeModel
    from genzoo.models.registry import load_model

    if flags.max_seconds is not None and flags.max_seconds <= 0:
        raise GenzooError(f"--max-seconds must be above 0, got {flags.max_seconds:g}")
    model = load_model(flags.run).to(flags.device)
    if isinstance(model, Encoder):
        _evaluate_encoder(model, flags)
    else:
        assert isinstance(model, GenerativeModel)
        _evaluate_generative(model, flags)


def _evaluate_encoder(encoder: "Encoder", flags: EvaluateFlags) -> None:
    from genzoo.evaluation.fine_tuning import FineTuning
    from genzoo.evaluation.report.encoder_sections import EncoderCase, encoder_sections

    generative = ("ood", "ais", "samples", "features", "max_seconds", "samples_only")
    _refuse(flags, generative, "for models that draw images, this is an encoder")
    how = None if flags.fine_tune is None else FineTuning(flags.fine_tune)
    data = load_for(encoder, flags)
    case = EncoderCase(encoder, data, flags.split, flags.seed, flags.max_images)
    sections = encoder_sections(case, flags.run, how)
    print_table(
        f"{flags.run} on {data.name}", {name: value for s in sections for name, value in s.rows.items()}
    )
    _keep(sections, flags.run)


def _refuse(flags: EvaluateFlags, names: Sequence[str], reason: str) -> None:
    """Raises `GenzooError` over the first of these flags that is given."""
    from genzoo.core.errors import GenzooError

    for name in names:
        if getattr(flags, name) not in (None, False):
            raise GenzooError(f"--{name.replace('_', '-')} is {reason}; leave it out")


def _evaluate_generative(model: "GenerativeModel", flags: EvaluateFlags) -> None:
    from genzoo.evaluation.report.sections import (
        Case,
        ais_section,
        illustrations_section,
        ood_section,
    )

    _refuse(flags, ("fine_tune",), "for encoders, this is a generative model")
    if flags.samples_only:
        about_likelihoods = ("max_seconds", "ood", "ais")
        _refuse(flags, about_likelihoods, "about likelihoods, which --samples-only leaves alone")
    inquiry = _inquiry(flags)
    data = load_for(model, flags)
    strange = None if flags.ood is None else load_for(model, replace(flags, data=flags.ood))
    case = Case(model, data, flags.split, flags.seed, flags.max_images, flags.max_seconds)
    quality, why_not = _quality(
        case, inquiry, flags
    )  # first: a feature extractor that is refused is refused at once
    ais = None if flags.ais is None else ais_section(case, images=flags.ais, annealing=_annealing(flags))
    pictures = illustrations_section(case, flags.run)
    sections, remarks = ([], {}) if flags.samples_only else own_sections(case, flags)
    sections, remarks = sections + quality + ([] if pictures is None else [pictures]), remarks | why_not
    if strange is not None:
        sections.append(ood_section(case, strange, flags.ood or ""))
    rows = remarks | {name: value for section in sections for name, value in section.rows.items()}
    print_table(f"{flags.run} on {data.name}", rows)
    if ais is not None:
        print_table("its generator plus noise", ais.rows)
        sections.append(ais)
    _keep(sections, flags.run)


def own_sections(case: "Case", flags: EvaluateFlags) -> tuple[list["Section"], dict[str, str]]:
    """What the model itself has to answer for, and rows of what it has not."""
    from genzoo.core.errors import NoLikelihood
    from genzoo.evaluation.report.block_sections import (
        baselines_section,
        classification_section,
        cost_section,
    )
    from genzoo.evaluation.report.sections import (
        latents_section,
        likelihood_section,
        modes_section,
        translation_section,
    )

    sections: list[Section | None] = [modes_section(case), translation_section(case)]
    remarks, report = {}, None
    try:
        likelihood, report = likelihood_section(case)
        sections += [likelihood, baselines_section(case), latents_section(case, report, flags.run)]
        sections.append(classification_section(case))
    except NoLikelihood as reason:
        remarks = {"likelihood": f"none: {reason}"}
    sections.append(cost_section(case, flags.run, report))
    return [section for section in sections if section is not None], remarks


def _inquiry(flags: EvaluateFlags) -> "Inquiry | None":
    """What is asked of samples; None where nothing is. Raises `GenzooError` for flags that say nothing sensible."""
    from genzoo.core.errors import GenzooError
    from genzoo.evaluation.features.extractor import extractor_named
    from genzoo.evaluation.report.quality_sections import Inquiry

    if flags.samples is not None and (flags.samples < 0 or flags.samples == 1):
        raise GenzooError(f"--samples must be 0 (none) or at least 2, got {flags.samples}")
    if flags.samples == 0 and flags.samples_only:
        raise GenzooError("--samples-only has nothing to evaluate with --samples 0; leave one of them out")
    if flags.samples == 0 and flags.features is not None:
        raise GenzooError("--features has nothing to evaluate with --samples 0; leave one of them out")
    return None if flags.samples == 0 else Inquiry(extractor_named(flags.features), flags.samples)


def _quality(
    case: "Case", inquiry: "Inquiry | None", flags: EvaluateFlags
) -> tuple[list["Section"], dict[str, str]]:
    """What there is to say of samples; where nobody asked and nothing can be said, why not."""
    from genzoo.core.errors import GenzooError
    from genzoo.evaluation.report.quality_sections import quality_sections

    if inquiry is None:
        return [], {}
    try:
        return quality_sections(case, inquiry, flags.run), {}
    except GenzooError as reason:
        if flags.samples is not None or flags.features is not None:
            raise
        return [], {"sample quality": f"none: {reason}"}


def _annealing(flags: EvaluateFlags) -> "Annealing":
    from genzoo.objectives.likelihood.decoder import Annealing

    return Annealing(steps=flags.ais_steps)


def _keep(sections: Sequence["Section"], run: Path) -> None:
    """Writes the report and tells where things are."""
    for section in sections:
        add_to_report(run, section.section, section.key, section.content)
    if sections:
        print(f"report: {run / REPORT}")
    pictures = [str(path) for section in sections for path in section.pictures]
    if pictures:
        print(f"pictures: {', '.join(pictures)}")


def load_for(model: "Trainable", flags: EvaluateFlags) -> "ImageData":
    """The data to be evaluated: the run's own unless the flags name others.

    Raises `GenzooError` where neither says which, or where they do not fit the model.
    """
    from genzoo.core.errors import GenzooError

    own = data_of_run(flags.run)
    if flags.data is None and own is None:
        raise GenzooError(f"{flags.run} does not say what it was trained on; name the data with --data")
    arguments = own if flags.data is None else None
    arguments = arguments or DataArguments(flags.data or "", flags.data_root)
    changes: dict[str, Any] = {
        "root": flags.data_root or arguments.root,
        "image_size": flags.image_size or arguments.image_size,
        "skip_bad_images": flags.skip_bad_images or arguments.skip_bad_images,
        "cond": own.cond if own is not None else "class" if model.spec.cond == "class" else None,
    }
    data = replace(arguments, **changes).load()
    if data.spec != model.spec:
        raise GenzooError(f"{data.name} does not fit this model: {_difference(model, data)}")
    return data


def _difference(model: "Trainable", data: "ImageData") -> str:
    wanted, found = vars(model.spec), vars(data.spec)
    key = next(key for key in wanted if wanted[key] != found[key])
    return f"its {key} is {found[key]}, the model was made for {wanted[key]}"
