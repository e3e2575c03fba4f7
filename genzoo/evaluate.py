"""`python -m genzoo.evaluate RUN [flags]`: how likely a trained model finds images it has not seen.

Of models with latents it also tells what these hold, in figures and pictures.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from genzoo import parsing
from genzoo.commands import (
    DataArguments,
    add_to_report,
    data_of_run,
    guarded,
    likelihood_rows,
    measure,
    print_table,
    set_id,
    with_error,
)

if TYPE_CHECKING:
    from genzoo.contract import GenerativeModel
    from genzoo.data import ImageData
    from genzoo.evaluation.likelihood import LikelihoodReport

PROG = "genzoo evaluate"
GAP_IMAGES = 1000  # training images, at most, that the generalisation gap is measured on
OUTLIER_IMAGES = 500  # images of each kind, at most, that outlier scores are compared on


@dataclass(frozen=True)
class EvaluateFlags:
    """Measures the likelihood of images under a trained model; writes RUN/report.json."""

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
    outliers: str | None = None
    """Also: how well the model tells these other data (mnist, folder:PATH ...) from its own."""
    seed: int = 0
    """Decides the subset, and what is random in a likelihood that is a bound or an estimate."""
    device: str | None = None
    """Such as cpu or cuda; else the CPU."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    flags = parsing.parse(EvaluateFlags, sys.argv[1:] if argv is None else argv, PROG)
    return guarded(lambda: _evaluate(flags))


def _evaluate(flags: EvaluateFlags) -> None:
    from genzoo.checkpoint import load_model

    model = load_model(flags.run).to(flags.device)
    data = load_for(model, flags)
    strange = None if flags.outliers is None else load_for(model, replace(flags, data=flags.outliers))
    report = measure(model, data, flags.split, seed=flags.seed, max_images=flags.max_images)
    gap = None if flags.split == "train" else generalisation_gap(model, data, report, flags.seed)
    parameters = sum(p.numel() for p in model.parameters())
    content = {"protocol": data.protocol, "split": flags.split, "seed": flags.seed, "parameters": parameters}
    content |= report.to_json() | {"generalisation_gap": gap}
    name = set_id(data, flags.split)
    path = add_to_report(flags.run, "likelihood", name, content)
    rows = likelihood_rows(report, data, flags.split)
    if gap is not None:
        rows["train/" + flags.split + " gap"] = _gap_text(gap)
    rows |= {"parameters": f"{parameters:,}", "speed": f"{report.images_per_second:.1f} images/s"}
    latents = describe_latents(model, data, flags, report)
    if latents:
        add_to_report(flags.run, "latents", name, latents)
        rows |= latent_rows(latents)
    if strange is not None:
        separation = tell_apart(model, data, strange, flags)
        add_to_report(flags.run, "outliers", f"{name} against {flags.outliers}", separation)
        rows |= {f"AUROC by {score}": f"{value:.3f}" for score, value in separation["auroc"].items()}
    print_table(f"{flags.run} on {data.name}", rows)
    print(f"report: {path}")
    if latents:
        print(f"pictures of the latents: {', '.join(latents['pictures'])}")


def load_for(model: "GenerativeModel", flags: EvaluateFlags) -> "ImageData":
    """The data to be judged: the run's own unless the flags name others.

    Raises `GenzooError` where neither says which, or where they do not fit the model.
    """
    from genzoo.contract import GenzooError

    own = data_of_run(flags.run)
    if flags.data is None and own is None:
        raise GenzooError(f"{flags.run} does not say what it was trained on; name the data with --data")
    arguments = own if flags.data is None else None
    arguments = arguments or DataArguments(flags.data or "", flags.data_root)
    changes: dict[str, Any] = {
        "root": flags.data_root or arguments.root,
        "image_size": flags.image_size or arguments.image_size,
        "skip_bad_images": flags.skip_bad_images or arguments.skip_bad_images,
        "cond": "class" if model.spec.cond == "class" else None,
    }
    data = replace(arguments, **changes).load()
    if data.spec != model.spec:
        raise GenzooError(f"{data.name} does not fit this model: {_difference(model, data)}")
    return data


def _difference(model: "GenerativeModel", data: "ImageData") -> str:
    wanted, found = vars(model.spec), vars(data.spec)
    key = next(key for key in wanted if wanted[key] != found[key])
    return f"its {key} is {found[key]}, the model was made for {wanted[key]}"


def generalisation_gap(
    model: "GenerativeModel", data: "ImageData", held_out: "LikelihoodReport", seed: int
) -> dict[str, Any]:
    """How many bits/dim worse the held-out images are than training images: what was learnt by heart.

    `stderr` is that of the difference; the two sets of images are independent.
    """
    train = measure(model, data, "train", seed=seed, max_images=GAP_IMAGES)
    errors = (train.bits_per_dim_stderr, held_out.bits_per_dim_stderr)
    stderr = None if None in errors else sum(e**2 for e in errors if e is not None) ** 0.5
    gap = held_out.bits_per_dim - train.bits_per_dim
    return {"bits_per_dim": gap, "stderr": stderr, "train_images": train.images, "train": train.to_json()}


def describe_latents(
    model: "GenerativeModel", data: "ImageData", flags: EvaluateFlags, report: "LikelihoodReport"
) -> dict[str, Any]:
    """Figures of the latents and the pictures drawn of them; nothing for a model without."""
    from genzoo.evaluation.latents import LatentVariableModel, draw_latents, latent_figures
    from genzoo.runtime import seeded

    if not isinstance(model, LatentVariableModel):
        return {}
    split, generator = data.split(flags.split), seeded(model.device, "latents", flags.seed)
    figures = latent_figures(model, split, report, generator=generator)
    pictures = draw_latents(model, split, flags.run, generator=generator)
    return {**figures, "pictures": [str(path) for path in pictures]}


def latent_rows(figures: dict[str, Any]) -> dict[str, str]:
    """The rows of a table that tell what the latents hold."""
    rows = {}
    if "rate" in figures:
        rows["rate + distortion"] = f"{figures['rate']:.2f} + {figures['distortion']:.2f} nats (ELBO)"
    if "active_units" in figures:
        rows["active latents"] = f"{figures['active_units']} of {figures['latents']}"
    if "kl_per_group" in figures:
        rows["KL per group"] = ", ".join(f"{kl:.2f}" for kl in figures["kl_per_group"]) + " nats"
    if "codebook_usage" in figures:
        share, effective = figures["codebook_usage"], figures["codebook_perplexity"]
        rows["codes in use"] = f"{share:.1%} of {figures['codes']} (perplexity {effective:.0f})"
    return rows


def tell_apart(
    model: "GenerativeModel", data: "ImageData", strange: "ImageData", flags: EvaluateFlags
) -> dict[str, Any]:
    """How well each outlier score tells images of `strange` from those of the model's own data.

    Typicality is measured from the validation split's mean. Class-conditional models sum over their classes.
    """
    from genzoo.evaluation.likelihood import subset
    from genzoo.evaluation.outliers import outlier_scores, separation
    from genzoo.runtime import seeded

    generator = seeded(model.device, "outliers", flags.seed)
    most = flags.max_images or OUTLIER_IMAGES
    entropy = measure(model, data, "val", seed=flags.seed, max_images=most).bits_per_dim
    scores = []
    for images in (data.split(flags.split), strange.split(flags.split)):
        chosen = images.batch(subset(len(images), most, seeded("cpu", "outliers", flags.seed))).images
        scores.append(outlier_scores(model, chosen, entropy=entropy, generator=generator))
    counts = [len(score.likelihood) for score in scores]
    return {"auroc": separation(*scores), "entropy": entropy, "images": counts, "kind": scores[0].kind.name}


def _gap_text(gap: dict[str, Any]) -> str:
    return (
        f"{with_error(gap['bits_per_dim'], gap['stderr'], 4)} bits/dim ({gap['train_images']} train images)"
    )


if __name__ == "__main__":
    sys.exit(main())
