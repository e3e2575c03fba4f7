"""Do samples show the class that was asked for? `python -m benchmarks.class_conditional [--minutes 3 | --steps N]`.

Each preset is trained with classes for the same processor time, draws 100 images of every class, and a classifier of
the training images says what it sees. Printed are the share of the samples that are given to the class asked for, with
its standard error, the class that fares worst, steps, and seconds of processor time of training; the first row is that
of real test images, what the classifier itself gets right. The target is 90% for each family on `digits`.

Left out are presets whose condition goes the way of another's here: `ddpm-likelihood`, `edm` and `flow-likelihood`
are rows of one engine (`ddpm`, `flow`) and differ in what they learn of noise; `vqgan` hands the class to the same
prior as `vq-transformer`. `--presets all` draws from them too. Presets that predict an image from an input image have
no classes. Guidance is what the presets have by default, 1 (none), unless `--guidance` says otherwise.

Minutes are those of processor time per core, turned into steps by a trial of a few.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import genzoo
from benchmarks.budget import fitted_seconds, steps_for
from genzoo.core.errors import GenzooError
from genzoo.core.random import seeded
from genzoo.core.spec import DataSpec
from genzoo.data.image_data import ImageData
from genzoo.data.image_grid import save_grid
from genzoo.evaluation.classifier import Classifier, fit_classifier
from genzoo.metrics.conditioning_metrics import ClassAgreement, class_agreement
from genzoo.models.base import GenerativeModel
from genzoo.models.diffusion.samplers.sampling import Sampling
from genzoo.models.registry import every_preset, list_models

DESCRIPTIONS = list_models()
PRESETS = every_preset()

TWINS = ("ddpm-likelihood", "edm", "flow-likelihood", "vqgan")
FAMILIES = tuple(name for name, preset in PRESETS.items() if not preset.needs_input)
PICTURED = 10  # samples of each class
BAR = 0.9


def trained(
    name: str, data: ImageData, size: str, seed: int, steps: int | None, minutes: float
) -> tuple[GenerativeModel, int, float]:
    """A preset after `steps`, or as many as fit into `minutes`; its steps, and seconds of processor time."""

    def fresh() -> GenerativeModel:
        return genzoo.create(name, data.spec, size, seed=seed)

    model = fresh()
    steps = steps or steps_for(lambda n: fitted_seconds(fresh(), data.train, n, seed), minutes)
    return model, steps, fitted_seconds(model, data.train, steps, seed)


def guided(model: GenerativeModel, guidance: float | None) -> float | None:
    """Sets the guidance of a model whose sampler has one (None leaves it); what it is, None for other families."""
    sampling = getattr(model.config, "sampling", None)
    if not isinstance(sampling, Sampling):
        return None
    if guidance is not None:
        model.config = replace(model.config, sampling=replace(sampling, guidance=guidance))  # pyright: ignore
    return sampling.guidance if guidance is None else guidance


def asked(spec: DataSpec, each: int) -> Tensor:
    """`each` times every class, long `[each * classes]`."""
    return torch.arange(spec.cond_size).repeat_interleave(each)


def judged(
    model: GenerativeModel, classifier: Classifier, each: int, seed: int
) -> tuple[ClassAgreement, Tensor]:
    """What `classifier` sees in `each` samples of every class, and the samples."""
    classes = asked(model.spec, each)
    samples = model.sample(len(classes), classes, generator=seeded(model.device, "classes", seed)).cpu()
    return class_agreement(classifier.probabilities(samples), classes), samples


def row(
    name: str, found: ClassAgreement, guidance: float | None, steps: int = 0, seconds: float = 0.0
) -> str:
    """A line of the table; shares in per cent."""
    share, worst = found.overall, found.worst
    mark = "" if share.value >= BAR else "  below the target"
    led = "-" if guidance is None else f"{guidance:g}"
    return (
        f"{name:18}{100 * share.value:6.1f} ± {100 * share.stderr:3.1f}  {worst:4d}: {100 * found.shares[worst]:5.1f}"
        f"{led:>10}{steps:8d} {seconds:7.0f}{mark}"
    )


def chosen(presets: str | None) -> tuple[str, ...]:
    """The presets that `--presets` names. Raises `GenzooError` for one that is unknown or has no classes."""
    if presets == "all":
        return FAMILIES
    if presets is None:
        return tuple(name for name in FAMILIES if name not in TWINS)
    names = tuple(presets.split(","))
    if unknown := [name for name in names if name not in FAMILIES]:
        why = "predicts an image from an image" if unknown[0] in DESCRIPTIONS else "is no preset"
        raise GenzooError(f"{unknown[0]} {why}: choose from all, {', '.join(FAMILIES)}")
    return names


def run(args: argparse.Namespace) -> None:
    """Prints the table; writes samples where asked to. Raises `GenzooError` for mistakes in the arguments."""
    names = chosen(args.presets)
    data = genzoo.load_data(args.data, cond="class")
    classifier = fit_classifier(data.train, data.spec, seed=args.seed)
    print(f"{'':18}asked class    worst class  guidance   steps   cpu s")
    assert data.test.labels is not None
    real = class_agreement(classifier.probabilities(data.test.images[:]), data.test.labels)
    print(row("real test images", real, None), flush=True)
    for name in names:
        try:
            model, steps, seconds = trained(name, data, args.size, args.seed, args.steps, args.minutes)
        except GenzooError as reason:
            print(f"{name:18}{reason}", flush=True)
            continue
        guidance = guided(model, args.guidance)
        found, samples = judged(model, classifier, args.each, args.seed)
        print(row(name, found, guidance, steps, seconds), flush=True)
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            shown = samples.view(data.spec.cond_size, args.each, *data.spec.shape)[:, :PICTURED]
            save_grid(shown.flatten(0, 1), data.spec, args.out / f"{name}.png", columns=shown.shape[1])


def main() -> None:
    """Prints a row for real test images and one for each preset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="labelled images")
    parser.add_argument(
        "--presets", help="separated by commas, or all; else one for each way of conditioning"
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="of training per preset")
    parser.add_argument("--steps", type=int, help="of training per preset, in place of minutes")
    parser.add_argument("--each", type=int, default=100, help="samples of each class")
    parser.add_argument("--guidance", type=float, help="of families that have it, in place of the presets'")
    parser.add_argument("--size", default="small", help="of the presets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, help="folder for a picture of samples per preset, a row per class"
    )
    try:
        run(parser.parse_args())
    except GenzooError as mistake:
        parser.error(str(mistake))


if __name__ == "__main__":
    main()
