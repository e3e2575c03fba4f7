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
from genzoo.cli.shared import device_of, guarded, print_table, tell
from genzoo.core.bounds import Images, Many, OptionalMany, Pixels, Seconds, Seed
from genzoo.core.showable import showable
from genzoo.models.run_data import DataArguments, data_of_run

if TYPE_CHECKING:
    from genzoo.core.trainable import Trainable
    from genzoo.data.image_data import ImageData
    from genzoo.evaluation.report.schema import Report

PROG = "genzoo evaluate"


@dataclass(frozen=True)
class EvaluateFlags:
    """Measures the likelihood of images under a trained model, or probes an encoder; writes RUN/report.json."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    data: str | None = None
    """Other data than the run's own (digits, mnist, folder:PATH ...), or where its own are now."""
    cond: str | None = None
    """Where the encoder (encoder:RUN) or the inputs (folder:INPUTS) of the run's --cond are now."""
    data_root: str | None = None
    """Where data sets lie; else where the run found them, or $GENZOO_DATA."""
    image_size: Pixels | None = None
    """Images of a folder are resized and cropped to this many pixels."""
    skip_bad_images: bool = False
    """Count and leave out images that cannot be read."""
    split: Literal["test", "val", "train"] = "test"
    """Which images."""
    max_images: Images | None = None
    """A random subset of this many images; else all."""
    max_seconds: Seconds | None = None
    """End each measurement of likelihoods after this time, with the images, in random order, that were measured by
    then."""
    samples: OptionalMany | None = None
    """Samples to draw and evaluate, else 2,000 or as many as there are images to compare them with; 0: none. Drawing
    ends after five minutes with what there is by then."""
    decode: Literal["draw", "mean"] | None = None
    """Of VAEs and VQ models: evaluate draws from the output distribution of the decoder, or its means; else draws.
    Figures of both stand beside each other in the report."""
    samples_only: bool = False
    """Evaluate samples and draw pictures; likelihoods and costs in the report stay as they are."""
    features: str | None = None
    """Feature extractor of FID-like metrics: encoder:RUN, pixels, random, inception or dinov2; else a small encoder
    that is trained on the training images once and cached in $GENZOO_CACHE or ~/.cache/genzoo."""
    published: bool = False
    """Also the Fréchet distance in the features of Inception-v3 and DINOv2, as far as their weights are in torch's
    cache (some minutes on a CPU; nothing is downloaded)."""
    ood: str | None = None
    """Out-of-distribution (OOD) detection: also the AUROC against these other data (mnist, folder:PATH ...)."""
    ais: Images | None = None
    """Of a model without likelihood: log-likelihood under its generator plus Gaussian observation noise, by annealed
    importance sampling (Wu et al. 2017) on this many images (slow)."""
    ais_steps: Many = 500
    """Temperatures of that estimate: more, and the bound is closer and slower."""
    fine_tune: Many | None = None
    """Of an encoder: also how good a classifier it becomes when it is trained on for this many steps (slow)."""
    seed: Seed = 0
    """Decides the subset, and what is random in a likelihood that is a bound or an estimate, or in a probe."""
    device: str | None = None
    """Such as cpu or cuda; else the CPU."""
    import_: Imports = ()
    """A module of your own that registers presets, data sources or metrics (`genzoo.register`); repeatable."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return guarded(lambda: _evaluate(parsing.parse(EvaluateFlags, imported(arguments), PROG)))


def _evaluate(flags: EvaluateFlags) -> None:
    from genzoo.core.surroundings import check_weights
    from genzoo.evaluation.evaluator import Evaluation, evaluate_with
    from genzoo.evaluation.fine_tuning import FineTuning
    from genzoo.evaluation.report.case import AISOptions, OODData
    from genzoo.models.loading import load_model
    from genzoo.objectives.likelihood.decoder import Annealing

    how = Evaluation(
        flags.split, flags.samples, flags.features, flags.max_images, flags.max_seconds, flags.seed, out=flags.run,
        run=flags.run, samples_only=flags.samples_only,
        ais=None if flags.ais is None else AISOptions(flags.ais, Annealing(steps=flags.ais_steps)),
        fine_tuning=None if flags.fine_tune is None else FineTuning(flags.fine_tune), published=flags.published,
    )  # fmt: skip
    model = load_model(flags.run).to(device_of(flags.device))
    check_weights(model)  # before the data are read
    _set_decoding(model, flags)
    _check_flags(model, flags)
    data = load_for(model, flags)
    if flags.ood is not None:
        other = load_for(model, replace(flags, data=flags.ood), own_classes=False)
        how = replace(how, ood=OODData(flags.ood, other))
    report = evaluate_with(model, data, how)
    tell([*data.remarks, *_changes(flags, data)])
    _show(report, flags.run, data.name)


def _set_decoding(model: "Trainable", flags: EvaluateFlags) -> None:
    """Raises `GenzooError` where the model has no means, or nothing is to be drawn."""
    from genzoo.core.errors import GenzooError
    from genzoo.models.base import GenerativeModel

    if flags.decode is None or not isinstance(model, GenerativeModel):
        return
    if flags.samples == 0:
        raise GenzooError("--decode has nothing to evaluate with --samples 0; leave one of them out")
    model.decoding = flags.decode


def _check_flags(model: "Trainable", flags: EvaluateFlags) -> None:
    """Raises `GenzooError` over the first flag that does not concern such a model."""
    from genzoo.models.base import Encoder

    if isinstance(model, Encoder):
        generative = (
            "ood",
            "ais",
            "samples",
            "features",
            "max_seconds",
            "samples_only",
            "decode",
            "published",
        )
        _refuse(flags, generative, "for models that draw images, this is an encoder")
        return
    _refuse(flags, ("fine_tune",), "for encoders, this is a generative model")
    if flags.samples_only:
        about_likelihoods = ("max_seconds", "ood", "ais")
        _refuse(flags, about_likelihoods, "about likelihoods, which --samples-only leaves alone")


def _refuse(flags: EvaluateFlags, names: Sequence[str], reason: str) -> None:
    """Raises `GenzooError` over the first of these flags that is given."""
    from genzoo.core.errors import GenzooError

    for name in names:
        if getattr(flags, name) not in (None, False):
            raise GenzooError(f"--{name.replace('_', '-')} is {reason}; leave it out")


def _show(report: "Report", run: Path, data: str) -> None:
    """Prints the report, writes it and tells where things are."""
    from genzoo.core.errors import GenzooError
    from genzoo.evaluation.report.rendering import other_tables_of, report_pictures, report_rows
    from genzoo.evaluation.report.report_file import write_report

    print_table(f"{run} on {data}", report_rows(report))
    for title, rows in other_tables_of(report).items():
        print_table(title, rows)
    pictures = report_pictures(report)
    if pictures:
        print(f"pictures: {showable(', '.join(pictures), 4000)}")
    if not any(report.parts()):
        raise GenzooError(f"nothing could be measured of {run}, for the reasons above: no report is written")
    print(f"report: {showable(write_report(report, run, must_exist=True), 1000)}")


def _changes(flags: EvaluateFlags, data: "ImageData") -> list[str]:
    """A remark where what lies at the place of the run's data is not what it was trained on."""
    from genzoo.models.run_data import change_since

    change = None if flags.data is not None else change_since(flags.run, data)
    known = "" if change is None else f"these are not the data that {flags.run} was trained on: {change}"
    return [f"{known}; figures are kept apart"] if known else []


def load_for(model: "Trainable", flags: EvaluateFlags, *, own_classes: bool = True) -> "ImageData":
    """The data to be evaluated: the run's own unless the flags name others; `own_classes`: their classes are the run's.

    Raises `GenzooError` where neither says which, or where they do not fit the model.
    """
    from genzoo.core.errors import GenzooError
    from genzoo.evaluation.evaluator import check_fits
    from genzoo.models.run_data import FOLDER

    own = data_of_run(flags.run)
    if flags.data is None and own is None:
        raise GenzooError(f"{flags.run} does not say what it was trained on; name the data with --data")
    names = [flags.data or "", "" if own is None else own.name]
    # a folder is read as the run's own was
    same_kind = own is not None and (flags.data is None or all(name.startswith(FOLDER) for name in names))
    arguments = own if same_kind else None
    arguments = arguments or DataArguments(flags.data or "", flags.data_root)
    if own is not None and flags.cond is not None:
        own = own.moved(cond=flags.cond)
    changes: dict[str, Any] = {
        "name": flags.data or arguments.name,
        "root": flags.data_root or arguments.root,
        "image_size": flags.image_size or arguments.image_size,
        "skip_bad_images": flags.skip_bad_images or arguments.skip_bad_images,
        "cond": own.cond if own is not None else "class" if model.spec.cond == "class" else None,
    }
    arguments = replace(arguments, **changes, **({} if own_classes else {"classes": ()}))
    data = arguments.load() if own is None else arguments.load_for(flags.run)
    check_fits(model, data)
    return data
